// SPDX-License-Identifier: MIT
/*
 * prefetch.c - see prefetch.h. What a directory was asked for lately stands in a small table by hash: a directory that
 * shares its place with another is fetched later, or once more. What the fetched entries may be kept for is checked by the
 * dcache, as everything is.
 *
 * A large directory of which others change a name now and then is not fetched again for that: what was recalled comes back one by one
 * as it is asked for. As long as the lease is the one under which it was fetched, it takes so many names asked for in
 * vain that fetching all costs about as much; and fetching one directory never takes more than a tenth of the time.
 */
#include "client/prefetch.h"

#include "base/log.h"
#include "claudefs/bpf_shared.h"
#include "client/client_i.h"
#include "client/fuse_ops_i.h"

#include <errno.h>
#include <stdlib.h>

#define PLACES		1024u
#define MISSES		3u		/* names asked for in vain before the whole directory is fetched */
#define AGAIN_SHARE	8u		/* entries fetched for each name asked for in vain since */
#define AGAIN_MS	10000u		/* after which it may be fetched again ... */
#define AGAIN_TIMES	10u		/* ... and so many times as long as it took */
#define JOBS_MAX	2u
#define FETCH_BYTES	65536u		/* of one reply */
#define CALL_MS		10000u		/* how long a server may take for one */

struct place {
	uint64_t dir;
	uint64_t again_ns;		/* not before; UINT64_MAX: it is being fetched */
	uint64_t epoch;			/* of the lease under which it was fetched; 0: it was not, or not all */
	uint64_t entries;		/* fetched then */
	uint32_t misses;		/* since */
};

struct cfs_prefetch {
	struct cfs_client *c;
	uint32_t entries_max;
	pthread_mutex_t lock;
	unsigned n_jobs;
	struct place places[PLACES];
};

struct job {
	struct cfs_prefetch *p;
	uint64_t dir;
	uint8_t reply[FETCH_BYTES];
};

int cfs_prefetch_create(struct cfs_client *c, uint32_t entries_max, struct cfs_prefetch **ret_p)
{
	struct cfs_prefetch *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->c = c;
	p->entries_max = entries_max;
	pthread_mutex_init(&p->lock, NULL);
	*ret_p = p;
	return 0;
}

void cfs_prefetch_destroy(struct cfs_prefetch *p)
{
	if (!p)
		return;
	CFS_ASSERT(!p->n_jobs);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/*
 * Keep what one reply brought; the number of entries, or -errno. *cookie goes on, *eof says whether that was all; *whole ends when a
 * name could not be kept.
 */
static int keep(struct cfs_client *c, uint64_t dir, const void *reply, uint32_t len, uint64_t since, uint64_t *cookie, bool *eof,
		bool *whole)
{
	struct cfs_readdir_rep rep;
	struct cfs_cursor cur;
	uint32_t n;

	cfs_cursor_init(&cur, reply, len);
	cfs_take_struct(&cur, &rep);
	n = cfs_le32_to_cpu(rep.n);
	*eof = cfs_le32_to_cpu(rep.flags) & CFS_READDIR_EOF;
	*whole &= !!(cfs_le32_to_cpu(rep.flags) & CFS_READDIR_KEEP);
	for (uint32_t i = 0; i < n; i++) {
		char name[CFS_NAME_MAX + 1];
		struct cfs_attr attr;
		struct cfs_dirent de;

		if (!cfs_dirent_take(&cur, true, *cookie, &de, &attr, name))
			return -EPROTO;
		*cookie = cfs_le64_to_cpu(de.cookie);
		if (!(de.valid & CFS_V_ENTRY) || !cfs_client_caching(c)) {
			*whole = false;
			continue;
		}
		*whole &= cfs_dcache_put_name(c->dcache, dir, name, cfs_le16_to_cpu(de.name_len), cfs_le64_to_cpu(de.ino), since, 0);
		if ((de.valid & CFS_V_ATTR) && attr.ino == de.ino)
			cfs_dcache_put_attr(c->dcache, &attr, since);
	}
	return n || *eof ? (int)n : -EPROTO;	/* else it would never end */
}

static struct place *place_of(struct cfs_prefetch *p, uint64_t dir)
{
	return &p->places[cfs_bpf_hash(dir) % PLACES];
}

/* the job is done */
static void fetched(const struct job *j, uint64_t took_ns, uint64_t epoch, uint64_t entries)
{
	struct cfs_prefetch *p = j->p;
	struct place *pl = place_of(p, j->dir);

	pthread_mutex_lock(&p->lock);
	p->n_jobs--;
	if (pl->dir == j->dir) {
		pl->again_ns = cfs_boot_ns() + cfs_max(AGAIN_MS * CFS_NSEC_PER_MSEC, AGAIN_TIMES * took_ns);
		pl->epoch = epoch;
		pl->entries = entries;
		pl->misses = 0;
	}
	pthread_mutex_unlock(&p->lock);
}

static void fetch(struct cfs_client *c, void *arg)
{
	struct job *j = arg;
	struct cfs_prefetch *p = j->p;
	uint64_t cookie = 0, entries = 0, since = 0, epoch = 0, begun = cfs_dcache_whole_begin(c->dcache, j->dir);
	uint64_t start_ns = cfs_boot_ns();
	bool eof = false, whole = true;
	int rc = 0;

	cfs_dcache_mirror_dir(c->dcache, j->dir);
	while (!rc && !eof && entries < p->entries_max && !__atomic_load_n(&c->stopping, __ATOMIC_ACQUIRE)) {
		struct cfs_readdir_req body = {
			.dir = cfs_cpu_to_le64(j->dir), .cookie = cfs_cpu_to_le64(cookie),
			.max_bytes = cfs_cpu_to_le32(FETCH_BYTES), .flags = cfs_cpu_to_le32(CFS_READDIR_PLUS),
		};
		struct iovec iov = { &body, sizeof(body) };
		struct cfs_call call = {
			.opcode = CFS_OP_READDIR, .body = &iov, .n_body = 1, .rep = j->reply, .rep_max = FETCH_BYTES,
			.timeout_ms = CALL_MS,
		};

		rc = cfs_call(c, &call);
		if (!cookie)
			since = call.break_gen;
		if (!rc)
			rc = keep(c, j->dir, j->reply, call.rep_len, call.break_gen, &cookie, &eof, &whole);
		if (rc == -EPROTO)
			cfs_err("directory %llu: the server's listing is malformed", (unsigned long long)j->dir);
		if (rc >= 0) {
			if (!entries)
				epoch = cfs_dcache_dir_epoch(c->dcache, j->dir);
			entries += (uint64_t)rc;
			rc = 0;
		}
	}
	if (eof && whole)
		cfs_dcache_put_whole(c->dcache, j->dir, since, begun);
	cfs_debug("prefetch of directory %llx: %llu entries, error %d", (unsigned long long)j->dir, (unsigned long long)entries, rc);
	__atomic_add_fetch(&c->n.prefetched_dirs, eof, __ATOMIC_RELAXED);
	__atomic_add_fetch(&c->n.prefetched_entries, entries, __ATOMIC_RELAXED);
	if (rc || epoch != cfs_dcache_dir_epoch(c->dcache, j->dir))
		epoch = 0;
	fetched(j, cfs_boot_ns() - start_ns, epoch, entries);
	free(j);
}

/* the place is locked; epoch: of the lease on the directory now */
static bool is_due(struct place *pl, uint64_t epoch, bool opened)
{
	bool known = epoch && pl->epoch == epoch;

	/* who opens it is going to list it, which brings what is missing */
	pl->misses += !opened ? 1 : known ? 0 : MISSES;
	if (pl->misses < (known ? cfs_max((uint64_t)MISSES, pl->entries / AGAIN_SHARE) : MISSES))
		return false;
	return cfs_boot_ns() >= pl->again_ns;
}

void cfs_prefetch_want(struct cfs_prefetch *p, uint64_t dir, bool opened)
{
	struct job *j = NULL;
	struct place *pl;
	uint64_t epoch;

	if (!p)
		return;
	epoch = cfs_dcache_dir_epoch(p->c->dcache, dir);
	pl = place_of(p, dir);
	pthread_mutex_lock(&p->lock);
	if (pl->dir != dir)
		*pl = (struct place){ .dir = dir };
	if (is_due(pl, epoch, opened) && p->n_jobs < JOBS_MAX) {
		j = malloc(sizeof(*j));
		if (j) {
			pl->again_ns = UINT64_MAX;
			p->n_jobs++;
		}
	}
	pthread_mutex_unlock(&p->lock);
	if (!j)
		return;
	j->p = p;
	j->dir = dir;
	if (cfs_jobs_submit(p->c->jobs, fetch, j)) {
		fetched(j, 0, 0, 0);
		free(j);
	}
}
