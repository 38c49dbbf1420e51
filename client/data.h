/* SPDX-License-Identifier: MIT */
/*
 * data.h - file data of one client: local cache files, dirty ranges, write-back, objects.
 *
 * One struct cfs_data per inode whose data this client has touched. It owns the extent cache, the cache
 * file (cachedir/<ino>, sparse; valid and dirty ranges in memory; wiped at mount), the size and times
 * that the server does not know yet, and the data lease of the file. Everything here may block (requests
 * to servers) unless said. Thread-safe: any thread may call; a lock per inode.
 *
 * Lease states of a cfs_data: NONE, SHARED, EXCL; transitions are asserted. Reads need SHARED or more, writes
 * need EXCL, or NONE when they go through (data_through.c): the calls take what they need by OPEN requests. The fuse layer holds cfs_data_reply_begin()
 * .. _end() around cfs_data_attr() and the reply that carries those attributes to the kernel with a timeout, so that
 * a break cannot slip between. Bytes need no such bracket: the kernel keeps a page locked until its READ is
 * answered, and the invalidation of a break waits for that lock.
 *
 * What the callers promise:
 *  - the break handler records the break (client/leasecheck.h) before it calls cfs_data_break();
 *  - requests begun under a session that is lost fail with -EIO, they are not repeated under a new one;
 *  - inval_pages() may wait for READs and WRITEs of this mount, so it is never called with a lock that they need.
 */
#ifndef CFS_CLIENT_DATA_H
#define CFS_CLIENT_DATA_H

#include <claudefs/wire.h>
#include <stdbool.h>
#include <stdint.h>

struct cfs_client;
struct cfs_data;
struct cfs_pass;
struct fuse_bufvec;

/* how files are passed through (gates.h); called with locks held, they ask nobody */
struct cfs_data_gate_ops {
	/*
	 * May a file be, that is opened like this? heat: bytes of it that were read and written here lately; cached: all of it is here
	 */
	bool (*fits)(void *arg, int flags, const struct cfs_attr *attr, uint64_t size, uint64_t heat, bool cached);
	/* a gate over fd, and its number for FUSE. 0 or -errno */
	int (*make)(void *arg, int fd, uint64_t ino, int *ret_gate, int32_t *ret_id);
	void (*unmake)(void *arg, int gate, int32_t id);
	/* CFS_GATE_OPEN ... of bpf/kmod/claudefs_gate.h. 0 or -errno */
	int (*ask)(int gate, unsigned long what, void *p);
};

struct cfs_data_params {
	const char *cachedir;		/* private to this mount; created 0700, emptied */
	int cache_fd;			/* of it, locked, by the process before (takeover.h); 0: none. The data path closes it */
	bool inherited;			/* another process served the mount before: the kernel may have what we do not know of */
	uint64_t cache_bytes;		/* limit of the cache files; least recently used clean ranges go first */
	uint64_t dirty_bytes;		/* limit of dirty data: writers wait beyond it */
	uint32_t flush_ms;		/* dirty data is flushed after this: 5000 */
	uint64_t inodes;		/* of closed files: those beyond are given back a second after their last use; 0: 262144 */
	/* NOTIFY_INVAL_INODE of pages [off, off+len) (len 0: to the end; off -1: of the attributes alone); called from
	 * threads that serve no request */
	void (*inval_pages)(void *arg, uint64_t ino, int64_t off, int64_t len);
	/* for who keeps attributes beside us; both may be NULL, take no lock, and are called with locks held: */
	/* the file is held exclusively from now on (cfs_data_excl() says so already): the server's attributes may be old */
	void (*ahead)(void *arg, uint64_t ino);
	/* a change of a file that is not held exclusively goes to the server; was answered (and its result was kept) */
	void (*changing)(void *arg, uint64_t ino, bool begin);
	/* this thread's write at the end of a file is placed at off; or NULL */
	void (*appending)(void *arg, uint64_t off);
	const struct cfs_data_gate_ops *gates;	/* or NULL */
	void *arg;
};
int cfs_data_start(struct cfs_client *c, const struct cfs_data_params *p);
/* flush all (bounded by timeout_ms), stop threads, remove cache files. Returns 0 or -EIO if something was lost */
int cfs_data_stop(struct cfs_client *c, uint32_t timeout_ms);

/* find or make; reference counted. Attributes come from the caller's last reply. NULL: no memory */
struct cfs_data *cfs_data_get(struct cfs_client *c, const struct cfs_attr *attr);
struct cfs_data *cfs_data_find(struct cfs_client *c, uint64_t ino);	/* NULL if none */
void cfs_data_put(struct cfs_data *d);
uint64_t cfs_data_ino(const struct cfs_data *d);

/* a reply carried a file lease (MKNODE, LOOKUP with data, OPEN): remember it, inline data too. break_gen: of that call */
void cfs_data_granted(struct cfs_data *d, const struct cfs_attr *attr, uint32_t lease, uint64_t break_gen,
		      const void *inline_data, uint32_t inline_len);

/*
 * The bytes of a file that was just made, and that nobody else knows yet, are the kernel's business from now on: attributes, sizes
 * and times are its backing file's, nothing is ever dirty. d owns p.
 */
void cfs_data_give_pass(struct cfs_data *d, struct cfs_pass *p);
struct cfs_pass *cfs_data_pass(struct cfs_data *d);	/* NULL: an ordinary file. Lives as long as d */
/*
 * An ordinary file is opened, and no other open file of it is there that goes another way: may the kernel read and write its cache
 * file through a gate (gates.h)? flags: of open(2); attr: of the file. The id of the backing file, or 0. From then on, until
 * cfs_data_gate_end(), all that open it must be given the id
 */
int32_t cfs_data_gate_begin(struct cfs_data *d, int flags, const struct cfs_attr *attr);
int32_t cfs_data_gate_id(struct cfs_data *d);		/* 0: there is none */
void cfs_data_gate_end(struct cfs_data *d);		/* the last one was closed; nothing is mapped */
bool cfs_data_gate_mapped(struct cfs_data *d);		/* true: CFS_GATE_UNMAPPED will come */
/* an event of the gate: CFS_GATE_WANT_READ ... of bpf/kmod/claudefs_gate.h. May take long */
void cfs_data_gate_event(struct cfs_data *d, unsigned what);
int cfs_data_cachedir(struct cfs_client *c);		/* its descriptor; borrowed */

/* open(2) and last close(2); open takes SHARED if no lease is held (one request), nothing if one is */
int cfs_data_open(struct cfs_data *d, int flags);
void cfs_data_release(struct cfs_data *d, int flags);	/* waits for nothing */
/* open(2) by the process before (takeover.h): the server knows, and nothing is asked */
void cfs_data_open_inherited(struct cfs_data *d);
/*
 * May the kernel have pages under a lease that the process before was given? True once; who opens the file has them dropped then.
 */
bool cfs_data_inherited(struct cfs_data *d);
bool cfs_data_is_open(struct cfs_data *d);
/* do others write it at the moment, too, so that writes go through? */
bool cfs_data_is_contended(struct cfs_data *d);
/* the server believes that this inode is open here; if it is not, it will be told so by cfs_data_idle() */
void cfs_data_claimed(struct cfs_client *c, uint64_t ino);

/*
 * Read: fills buf (size bytes, 4096-aligned). Return bytes (short only at the end of the file) or -errno (-EIO with
 * CFS_E_CORRUPT on every copy). Never holes as anything but zeros.
 */
int64_t cfs_data_read(struct cfs_data *d, void *buf, uint64_t size, uint64_t off);
/* Write under EXCL into the cache file, or through to the servers when the file is contended: then the bytes of one call are seen by
 * all or none, and it may write less than asked for (CFS_OBJECT_MAX). Return bytes or -errno (-ENOSPC, -EFBIG, -EDQUOT) */
#define CFS_DATA_APPEND		1u	/* at the current end */
#define CFS_DATA_KILLPRIV	2u	/* ends suid, sgid and capabilities */
#define CFS_DATA_MAPPED		4u	/* a page that was stored to through a mapping */
#define CFS_DATA_DIRECT		8u	/* the kernel has no pages of it: direct I/O */
int64_t cfs_data_write(struct cfs_data *d, const void *buf, uint64_t size, uint64_t off, unsigned how);
/* durable in the cluster: all data and size. Reports, once per open, an earlier failed write-back */
int cfs_data_fsync(struct cfs_data *d);
/* everything of the inode that the server must see before an operation on it there (fallocate, copy, seek) */
int cfs_data_flush(struct cfs_data *d);
/* for close(2): an earlier failed write-back, reported once per open; what is still failing too. Asks nobody */
int cfs_data_error(struct cfs_data *d);
/* the server changed the content [off, off+len) (len 0: to the end), new attributes: drop what is cached of it.
 * attr may be NULL. Call cfs_data_flush() before the request that does so */
void cfs_data_changed(struct cfs_data *d, uint64_t off, uint64_t len, const struct cfs_attr *attr);
/*
 * A SETATTR of this mount (but for the size) was answered with attr: its times are ours now, also for what is still to be
 * flushed. mode_set: the mode too (a pending kill_priv is over). No flush is needed before such a SETATTR.
 */
void cfs_data_setattr_done(struct cfs_data *d, const struct cfs_attr *attr, bool mode_set);
/**
 * cfs_data_set_times() - an exclusive holder's own change of times that goes with the COMMIT of what was written here.
 * @mtime: or NULL, when only ctime becomes now
 * Return: false: nothing is to be committed, a write has ended suid, or the lease is on its way out: ask the server. Blocks for no
 * request.
 */
bool cfs_data_set_times(struct cfs_data *d, const struct cfs_time *mtime);
/* an exclusive holder's own truth (size, times, blocks, killed suid) on top of the server's attributes; true if it
 * changed them. Blocks for no request. Also the answer to CB_ASK */
bool cfs_data_attr(struct cfs_data *d, struct cfs_attr *attr);
/* is there anything, bytes, size or times, that the server has not confirmed? Blocks for no request */
bool cfs_data_unsaved(struct cfs_data *d);
/* is the file held exclusively, so that the server's attributes may be old? Takes no lock but that of the table */
bool cfs_data_excl(struct cfs_client *c, uint64_t ino);
void cfs_data_reply_begin(struct cfs_data *d);
void cfs_data_reply_end(struct cfs_data *d);
/* set the size: local under EXCL where the server need not know, else SETATTR. No other call is needed */
int cfs_data_truncate(struct cfs_data *d, uint64_t size);
/* the same with kill_priv; *attr, if given, gets the server's reply (attr->ino 0: nothing was asked), then overlaid with
 * what the holder knows better as by cfs_data_attr() */
int cfs_data_setsize(struct cfs_data *d, uint64_t size, bool kill_priv, struct cfs_attr *attr);
/* the inode lost its last name and is not open here, or is gone: drop everything, flush nothing */
void cfs_data_forget(struct cfs_data *d);

/* break handler: lower to to_mode; flushes when EXCL; then invalidates pages. Returns whether open */
bool cfs_data_break(struct cfs_client *c, uint64_t ino, unsigned to_mode);
/* session lost: everything goes without a flush; dirty inodes get an error for their next fsync/close */
void cfs_data_session_lost(struct cfs_client *c);
/* the same for one inode: RECLAIM did not grant its lease again */
void cfs_data_lease_lost(struct cfs_client *c, uint64_t ino);
/* for RECLAIM: calls cb with every lease and open file */
void cfs_data_leases(struct cfs_client *c, void (*cb)(void *arg, uint64_t ino, unsigned mode, bool open), void *arg);
/* hand back leases of closed files not used for idle_ms (flushes first); called by the heartbeat thread */
void cfs_data_idle(struct cfs_client *c, uint32_t idle_ms);

struct cfs_data_stat {
	uint64_t cached_bytes, dirty_bytes, inodes, reads_cache, reads_net, bytes_read_net, bytes_written_net;
	uint64_t flushes, commits, commit_items, writes_through;
	uint64_t gate_opens, gate_shuts, gate_wants;
};
void cfs_data_stat(struct cfs_client *c, struct cfs_data_stat *ret);

#endif
