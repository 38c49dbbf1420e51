// SPDX-License-Identifier: MIT
/* persist.c - see persist.h. Records of one kind have one writer each, or a lock: slots.c's, fhtab.c's place, owners_lock. */
#include "client/persist.h"

#include "base/hash.h"
#include "client/client_i.h"
#include "client/fhtab.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void layout(struct cfs_pst_head *h)
{
	uint64_t at = cfs_align_up(sizeof(*h), 4096);

	memset(h, 0, sizeof(*h));
	h->magic = CFS_PST_MAGIC;
	h->version = CFS_PST_VERSION;
	h->head_bytes = sizeof(*h);
	h->n_slots = CFS_SLOTS_MAX;
	h->n_fhs = CFS_FHS_MAX;
	h->n_owners = CFS_PST_OWNERS;
	h->slots_off = at;
	at = cfs_align_up(at + (uint64_t)h->n_slots * sizeof(struct cfs_pst_slot), 4096);
	h->fhs_off = at;
	at = cfs_align_up(at + (uint64_t)h->n_fhs * sizeof(struct cfs_pst_fh), 4096);
	h->owners_off = at;
	at = cfs_align_up(at + (uint64_t)h->n_owners * sizeof(struct cfs_pst_owner), 4096);
	h->n_appends = CFS_PST_APPENDS;
	h->appends_off = at;
	at = cfs_align_up(at + (uint64_t)h->n_appends * sizeof(struct cfs_pst_append), 4096);
	h->total_bytes = at;
}

int cfs_persist_new(int *ret_memfd)
{
	struct cfs_pst_head h;
	int rc = 0, fd = memfd_create("claudefs-state", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	layout(&h);
	/* sparse: what is not used takes no memory */
	if (ftruncate(fd, (off_t)h.total_bytes))
		rc = -errno;
	else if (pwrite(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h))
		rc = -EIO;
	if (rc) {
		close(fd);
		return rc;
	}
	*ret_memfd = fd;
	return 0;
}

static int check(const struct cfs_pst_head *h, uint64_t bytes, char *why, size_t len)
{
	struct cfs_pst_head want;

	layout(&want);
	if (bytes < sizeof(*h) || h->magic != want.magic) {
		snprintf(why, len, "its state is none of ours");
	} else if (h->version != want.version) {
		snprintf(why, len, "its state has version %u, this program knows %u", h->version, want.version);
	} else if (bytes != want.total_bytes || memcmp(h, &want, offsetof(struct cfs_pst_head, slots_used))) {
		snprintf(why, len, "its state is laid out differently");
	} else if (h->slots_used > h->n_slots || h->fhs_top > h->n_fhs || h->init_in_len > CFS_PST_INIT_MAX ||
		   h->init_out_len > CFS_PST_INIT_MAX || !memchr(h->cachedir, 0, sizeof(h->cachedir))) {
		snprintf(why, len, "its state makes no sense");
	} else {
		return 0;
	}
	return -EPROTO;
}

int cfs_persist_open(int memfd, struct cfs_persist **ret_p, char *why, size_t len)
{
	struct cfs_persist *p = calloc(1, sizeof(*p));
	struct stat st;
	void *map;
	int rc = 0;

	if (!p || fstat(memfd, &st)) {
		rc = p ? -errno : -ENOMEM;
		snprintf(why, len, "%s", strerror(-rc));
		free(p);
		return rc;
	}
	map = st.st_size ? mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0) : MAP_FAILED;
	if (map == MAP_FAILED) {
		rc = st.st_size ? -errno : -EPROTO;
		snprintf(why, len, "its state cannot be mapped: %s", strerror(-rc));
		free(p);
		return rc;
	}
	rc = check(map, (uint64_t)st.st_size, why, len);
	if (rc) {
		munmap(map, (size_t)st.st_size);
		free(p);
		return rc;
	}
	p->head = map;
	p->slots = (void *)((char *)map + p->head->slots_off);
	p->fhs = (void *)((char *)map + p->head->fhs_off);
	p->owners = (void *)((char *)map + p->head->owners_off);
	p->appends = (void *)((char *)map + p->head->appends_off);
	p->memfd = memfd;
	p->holder = p->fuse_fd = p->cache_fd = -1;
	pthread_mutex_init(&p->owners_lock, NULL);
	for (uint32_t i = CFS_PST_OWNERS; i-- > 0;)
		if (!p->owners[i].fh)
			p->free_owners[p->n_free++] = i;
	*ret_p = p;
	return 0;
}

void cfs_persist_close(struct cfs_persist *p)
{
	if (!p)
		return;
	munmap(p->head, p->head->total_bytes);
	close(p->memfd);
	if (p->holder >= 0)
		close(p->holder);
	pthread_mutex_destroy(&p->owners_lock);
	free(p);
}

/* ---- open files -------------------------------------------------------------------------------- */
void cfs_persist_fh_offer(struct cfs_persist *p, uint64_t id, const struct cfs_pst_fh *fh)
{
	struct cfs_pst_fh *r;
	uint32_t top;

	if (!p)
		return;
	r = &p->fhs[cfs_fhtab_place(id)];
	*r = *fh;
	r->gen = (uint32_t)(id >> 32);
	top = __atomic_load_n(&p->head->fhs_top, __ATOMIC_RELAXED);
	while (top <= cfs_fhtab_place(id) && !__atomic_compare_exchange_n(&p->head->fhs_top, &top, cfs_fhtab_place(id) + 1,
									  false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
	__atomic_store_n(&r->state, CFS_PST_FH_OFFERED, __ATOMIC_RELEASE);
}

void cfs_persist_fh_opened(struct cfs_persist *p, uint64_t id)
{
	if (p)
		__atomic_store_n(&p->fhs[cfs_fhtab_place(id)].state, CFS_PST_FH_OPEN, __ATOMIC_RELEASE);
}

void cfs_persist_fh_del(struct cfs_persist *p, uint64_t id)
{
	if (p)
		__atomic_store_n(&p->fhs[cfs_fhtab_place(id)].state, CFS_PST_FH_FREE, __ATOMIC_RELEASE);
}

uint64_t cfs_persist_fh_id(const struct cfs_persist *p, uint32_t place)
{
	return (uint64_t)p->fhs[place].gen << 32 | (place + 1);
}

/* ---- lock owners ----------------------------------------------------------------------------------- */
uint32_t cfs_persist_owner_add(struct cfs_persist *p, uint64_t owner, uint64_t fh_id)
{
	uint32_t record = 0;

	pthread_mutex_lock(&p->owners_lock);
	if (p->n_free) {
		struct cfs_pst_owner *o = &p->owners[p->free_owners[--p->n_free]];

		o->owner = owner;
		__atomic_store_n(&o->fh, fh_id, __ATOMIC_RELEASE);
		record = (uint32_t)(o - p->owners) + 1;
	}
	pthread_mutex_unlock(&p->owners_lock);
	return record;
}

void cfs_persist_owner_del(struct cfs_persist *p, uint32_t record)
{
	if (!p || !record)
		return;
	pthread_mutex_lock(&p->owners_lock);
	__atomic_store_n(&p->owners[record - 1].fh, 0, __ATOMIC_RELEASE);
	p->free_owners[p->n_free++] = record - 1;
	pthread_mutex_unlock(&p->owners_lock);
}

/* ---- appends --------------------------------------------------------------------------------------------- */
static struct cfs_pst_append *append_of(struct cfs_persist *p, uint64_t unique)
{
	uint32_t first = (uint32_t)(cfs_hash_u64(unique) % CFS_PST_APPENDS);

	for (uint32_t i = 0; i < CFS_PST_APPENDS; i++) {
		struct cfs_pst_append *a = &p->appends[(first + i) % CFS_PST_APPENDS];

		if (a->unique == unique)
			return a;
	}
	return NULL;
}

void cfs_persist_append_at(struct cfs_persist *p, uint64_t unique, uint64_t off)
{
	uint32_t at = (uint32_t)(cfs_hash_u64(unique) % CFS_PST_APPENDS);

	pthread_mutex_lock(&p->owners_lock);
	/* as many places as there can be workers; what a death left behind is found and freed when it comes again, or never */
	for (uint32_t i = 0; i < CFS_PST_APPENDS; i++, at = (at + 1) % CFS_PST_APPENDS) {
		struct cfs_pst_append *a = &p->appends[at];

		if (a->unique && a->unique != unique)
			continue;
		a->off = off;
		__atomic_store_n(&a->unique, unique, __ATOMIC_RELEASE);
		break;
	}
	pthread_mutex_unlock(&p->owners_lock);
}

void cfs_persist_append_done(struct cfs_persist *p, uint64_t unique)
{
	struct cfs_pst_append *a;

	if (!p || !unique)
		return;
	pthread_mutex_lock(&p->owners_lock);
	a = append_of(p, unique);
	if (a)
		__atomic_store_n(&a->unique, 0, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&p->owners_lock);
}

bool cfs_persist_append_find(struct cfs_persist *p, uint64_t unique, uint64_t *ret_off)
{
	struct cfs_pst_append *a;

	pthread_mutex_lock(&p->owners_lock);
	a = append_of(p, unique);
	if (a)
		*ret_off = a->off;
	pthread_mutex_unlock(&p->owners_lock);
	return a != NULL;
}

/* ---- INIT and the session ---------------------------------------------------------------------------- */
void cfs_persist_init_done(struct cfs_persist *p, const void *in, size_t in_len, const void *out, size_t out_len)
{
	struct cfs_pst_head *h = p->head;

	CFS_ASSERT(in_len <= CFS_PST_INIT_MAX && out_len <= CFS_PST_INIT_MAX);
	memcpy(h->init_in, in, in_len);
	h->init_in_len = (uint32_t)in_len;
	memcpy(h->init_out, out, out_len);
	__atomic_store_n(&h->init_out_len, (uint32_t)out_len, __ATOMIC_RELEASE);
}

void cfs_persist_session(struct cfs_persist *p, struct cfs_client *c, uint64_t session)
{
	struct cfs_pst_head *h;

	if (!p)
		return;
	h = p->head;
	if (session) {
		memcpy(h->cluster, c->cluster, sizeof(h->cluster));
		h->lease_ms = __atomic_load_n(&c->lease_ms, __ATOMIC_RELAXED);
		__atomic_store_n(&h->leader_epoch, __atomic_load_n(&c->leader_epoch, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
	}
	__atomic_store_n(&h->session, session, __ATOMIC_SEQ_CST);
}
