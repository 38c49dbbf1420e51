// SPDX-License-Identifier: MIT
/*
 * prefetch.c - see prefetch.h. What a directory was asked for lately stands in a small table by hash: a directory that
 * shares its place with another is fetched later, or once more. What the fetched entries may be kept for is checked by the
 * dcache, as everything is.
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
#define AGAIN_MS	10000u		/* after which it may be fetched again */
#define JOBS_MAX	2u
#define FETCH_BYTES	65536u		/* of one reply */
#define CALL_MS		10000u		/* how long a server may take for one */

struct place {
	uint64_t dir;
	uint64_t since_ns;		/* fetched, or being fetched; 0: not yet */
	uint32_t misses;
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

/* keep what one reply brought; the number of entries, or -errno. *cookie goes on, *eof says whether that was all */
static int keep(struct cfs_client *c, uint64_t dir, const void *reply, uint32_t len, uint64_t since, uint64_t *cookie, bool *eof)
{
	struct cfs_readdir_rep rep;
	struct cfs_cursor cur;
	uint32_t n;

	cfs_cursor_init(&cur, reply, len);
	cfs_take_struct(&cur, &rep);
	n = cfs_le32_to_cpu(rep.n);
	*eof = cfs_le32_to_cpu(rep.flags) & CFS_READDIR_EOF;
	for (uint32_t i = 0; i < n; i++) {
		char name[CFS_NAME_MAX + 1];
		struct cfs_attr attr;
		struct cfs_dirent de;

		if (!cfs_dirent_take(&cur, true, *cookie, &de, &attr, name))
			return -EPROTO;
		*cookie = cfs_le64_to_cpu(de.cookie);
		if (!(de.valid & CFS_V_ENTRY) || !cfs_client_caching(c))
			continue;
		cfs_dcache_put_name(c->dcache, dir, name, cfs_le16_to_cpu(de.name_len), cfs_le64_to_cpu(de.ino), since, 0);
		if ((de.valid & CFS_V_ATTR) && attr.ino == de.ino)
			cfs_dcache_put_attr(c->dcache, &attr, since);
	}
	return n || *eof ? (int)n : -EPROTO;	/* else it would never end */
}

static void fetch(struct cfs_client *c, void *arg)
{
	struct job *j = arg;
	struct cfs_prefetch *p = j->p;
	uint64_t cookie = 0, entries = 0;
	bool eof = false;
	int rc = 0;

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
		if (!rc)
			rc = keep(c, j->dir, j->reply, call.rep_len, call.break_gen, &cookie, &eof);
		if (rc == -EPROTO)
			cfs_err("directory %llu: the server's listing is malformed", (unsigned long long)j->dir);
		if (rc >= 0) {
			entries += (uint64_t)rc;
			rc = 0;
		}
	}
	cfs_debug("prefetch of directory %llx: %llu entries, error %d", (unsigned long long)j->dir, (unsigned long long)entries, rc);
	__atomic_add_fetch(&c->n.prefetched_dirs, eof, __ATOMIC_RELAXED);
	__atomic_add_fetch(&c->n.prefetched_entries, entries, __ATOMIC_RELAXED);
	pthread_mutex_lock(&p->lock);
	p->n_jobs--;
	pthread_mutex_unlock(&p->lock);
	free(j);
}

void cfs_prefetch_want(struct cfs_prefetch *p, uint64_t dir, bool opened)
{
	struct job *j = NULL;
	struct place *pl;
	uint64_t now;

	if (!p)
		return;
	now = cfs_boot_ns();
	pl = &p->places[cfs_bpf_hash(dir) % PLACES];
	pthread_mutex_lock(&p->lock);
	if (pl->dir != dir)
		*pl = (struct place){ .dir = dir };
	pl->misses += opened ? MISSES : 1;
	if (pl->misses >= MISSES && p->n_jobs < JOBS_MAX && (!pl->since_ns || now - pl->since_ns >= AGAIN_MS * CFS_NSEC_PER_MSEC)) {
		j = malloc(sizeof(*j));
		if (j) {
			pl->since_ns = now;
			pl->misses = 0;
			p->n_jobs++;
		}
	}
	pthread_mutex_unlock(&p->lock);
	if (!j)
		return;
	j->p = p;
	j->dir = dir;
	if (cfs_jobs_submit(p->c->jobs, fetch, j)) {
		pthread_mutex_lock(&p->lock);
		p->n_jobs--;
		pthread_mutex_unlock(&p->lock);
		free(j);
	}
}
