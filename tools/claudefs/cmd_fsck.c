/* SPDX-License-Identifier: MIT */
/*
 * cmd_fsck.c - `claudefs fsck --config FILE`: checks the data of a server that is not running.
 *
 *  1. every target by itself: headers, records, the content of every object (nothing is changed);
 *  2. recovery: a node is started on these targets without a network, which brings the state up to
 *     the last log entry as every start does, and stopped;
 *  3. the metadata by itself;
 *  4. metadata against objects: every extent has its object, and every object is an extent's, is
 *     on the list of the dead, or belongs to a checkpoint.
 * With --repair, wrong counts are set right and objects that nothing refers to are deleted.
 * Exit codes are fsck(8)'s.
 */
#include "cmd.h"
#include "fsck_node.h"

#include "server/cluster/config.h"
#include "server/meta/meta.h"
#include "server/store/store.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FSCK_OK 0
#define FSCK_FIXED 1
#define FSCK_ERRORS 4
#define FSCK_OPERATIONAL 8
#define FSCK_USAGE 16

#define FINDINGS_PRINTED_MAX 1000u	/* lines; the rest is only counted */
#define LIST_BATCH 4096u
#define DELETE_BATCH 4096u		/* objects */
#define PROGRESS_NS (2 * CFS_NSEC_PER_SEC)

struct object {
	struct cfs_oid oid;	/* little-endian, as everywhere */
	uint32_t len;
	uint32_t target;	/* index */
	bool used;
};

struct fsck {
	struct cfs_config cfg;
	bool repair, json;
	uint64_t errors, fixed, notes, printed;
	json_t *findings;
	struct object *objects;
	size_t n_objects, cap_objects;
	uint64_t extents, checked_bytes, garbage, garbage_bytes, told_ns;
	uint8_t cluster[16];
};

CFS_PRINTF(3, 4) static void finding(struct fsck *f, const char *kind, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!strcmp(kind, "error"))
		f->errors++;
	else if (!strcmp(kind, "fixed"))
		f->fixed++;
	else
		f->notes++;
	if (f->printed++ >= FINDINGS_PRINTED_MAX)
		return;
	if (f->json)
		json_array_append_new(f->findings, json_pack("{s:s, s:s}", "kind", kind, "text", text));
	else
		printf("%s: %s\n", kind, text);
}

/* ---- 1. targets ------------------------------------------------------------------------------- */
static void on_store_finding(void *arg, const struct cfs_store_finding *s)
{
	finding(arg, s->error ? "error" : "note", "segment %u, offset %" PRIu64 ": %s", s->segment, s->offset, s->text);
}

static int check_targets(struct fsck *f, struct cfs_loop *loop)
{
	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX; i++) {
		struct cfs_store_checked c = { 0 };
		struct cfs_dev *dev = NULL;
		char err[256] = "";
		int rc;

		if (!f->cfg.targets[i])
			continue;
		rc = cfs_dev_open(loop, f->cfg.targets[i], 0, &dev);
		if (!rc)
			rc = cfs_store_check(dev, on_store_finding, f, &c, err, sizeof(err));
		cfs_dev_close(dev);
		if (rc)
			return cmd_fail(FSCK_OPERATIONAL, "fsck", "%s: %s", f->cfg.targets[i],
					err[0] ? err : rc == -EBUSY ? "is in use: stop the server first" : strerror(-rc));
		f->checked_bytes += c.bytes;
	}
	return 0;
}

/* ---- 4. objects ---------------------------------------------------------------------------------- */
static int object_cmp(const void *a, const void *b)
{
	return memcmp(&((const struct object *)a)->oid, &((const struct object *)b)->oid, sizeof(struct cfs_oid));
}

static int object_add(struct fsck *f, const struct cfs_oid *oid, uint32_t len, unsigned target)
{
	if (f->n_objects == f->cap_objects) {
		size_t cap = f->cap_objects ? f->cap_objects * 2 : 1024;
		struct object *o = realloc(f->objects, cap * sizeof(*o));

		if (!o)
			return -ENOMEM;
		f->objects = o;
		f->cap_objects = cap;
	}
	f->objects[f->n_objects++] = (struct object){ .oid = *oid, .len = len, .target = target };
	return 0;
}

static int list_store(struct fsck *f, struct cfs_store *st, unsigned target)
{
	struct cfs_oid *oids = malloc(LIST_BATCH * sizeof(*oids));
	uint32_t *lens = malloc(LIST_BATCH * sizeof(*lens));
	uint64_t cursor = 0;
	int n, rc = oids && lens ? 0 : -ENOMEM;

	while (!rc && (n = cfs_store_list(st, &cursor, oids, lens, LIST_BATCH)) > 0)
		for (int i = 0; i < n && !rc; i++)
			rc = object_add(f, &oids[i], lens[i], target);
	free(oids);
	free(lens);
	return rc;
}

static struct object *object_find(struct fsck *f, const struct cfs_oid *oid)
{
	struct object key = { .oid = *oid };

	return f->n_objects ? bsearch(&key, f->objects, f->n_objects, sizeof(key), object_cmp) : NULL;
}

static int on_extent(void *arg, uint64_t ino, const struct cfs_extent *e)
{
	uint32_t len = cfs_le32_to_cpu(e->obj_len);
	struct fsck *f = arg;
	struct object *o;

	f->extents++;
	if (cfs_le32_to_cpu(e->flags) & CFS_EXT_UNWRITTEN)
		return 0;
	o = object_find(f, &e->oid);
	if (!o) {
		finding(f, "error", "inode %" PRIu64 ", offset %" PRIu64 ": object %" PRIx64 ".%" PRIx64 " is on no target",
			ino, cfs_le64_to_cpu(e->file_off), cfs_le64_to_cpu(e->oid.owner), cfs_le64_to_cpu(e->oid.seq));
	} else {
		o->used = true;
		if (o->len != len)
			finding(f, "error", "inode %" PRIu64 ", offset %" PRIu64 ": object %" PRIx64 ".%" PRIx64
				" has %u bytes, the extent says %u", ino, cfs_le64_to_cpu(e->file_off),
				cfs_le64_to_cpu(e->oid.owner), cfs_le64_to_cpu(e->oid.seq), o->len, len);
	}
	return 0;
}

static void mark_dead(struct fsck *f, struct cfs_meta *m)
{
	struct cfs_time never = { .sec = cfs_cpu_to_le64(INT64_MAX) };
	unsigned max = 1u << 20;
	struct cfs_dead *dead = malloc(max * sizeof(*dead));
	int n = dead ? cfs_meta_dead(m, &never, dead, max) : 0;

	for (int i = 0; i < n; i++) {
		struct object *o = object_find(f, &dead[i].oid);

		if (o)
			o->used = true;
	}
	free(dead);
}

static bool is_garbage(const struct object *o)
{
	return !o->used && cfs_le64_to_cpu(o->oid.owner) != CFS_OID_OWNER_META;
}

/* to people, and not more often than they can read it */
static void progress(struct fsck *f, struct cfs_loop *loop, uint64_t deleted)
{
	uint64_t now = cfs_clock_boot_ns(cfs_loop_clock(loop));

	if (f->json || now - f->told_ns < PROGRESS_NS)
		return;
	f->told_ns = now;
	fprintf(stderr, "claudefs fsck: %" PRIu64 " of %" PRIu64 " objects deleted\n", deleted, f->garbage);
}

/* of one target, many to a record of deletions */
static int delete_garbage(struct fsck *f, struct cfs_loop *loop, struct cfs_store *store, unsigned target, uint64_t *deleted)
{
	struct cfs_oid *oids = malloc(DELETE_BATCH * sizeof(*oids));
	uint32_t n = 0;
	int rc = oids ? 0 : -ENOMEM;

	for (size_t i = 0; i < f->n_objects && !rc; i++) {
		const struct object *o = &f->objects[i];

		if (o->target == target && is_garbage(o))
			oids[n++] = o->oid;
		if (n < DELETE_BATCH && (i + 1 < f->n_objects || !n))
			continue;
		rc = fsck_delete_objects(loop, store, oids, n);
		*deleted += n;
		n = 0;
		progress(f, loop, *deleted);
	}
	free(oids);
	return rc;
}

static int drop_garbage(struct fsck *f, struct cfs_loop *loop, struct cfs_store **stores)
{
	uint64_t deleted = 0;

	for (size_t i = 0; i < f->n_objects; i++)
		if (is_garbage(&f->objects[i])) {
			f->garbage++;
			f->garbage_bytes += f->objects[i].len;
		}
	if (!f->garbage)
		return 0;
	f->told_ns = cfs_clock_boot_ns(cfs_loop_clock(loop));
	for (unsigned t = 0; t < CFS_NODE_TARGETS_MAX && f->repair; t++) {
		int rc = stores[t] ? delete_garbage(f, loop, stores[t], t, &deleted) : 0;

		if (rc)
			return cmd_fail(FSCK_OPERATIONAL, "fsck", "%s: cannot delete objects, %" PRIu64 " of %" PRIu64 " were: %s",
					f->cfg.targets[t], deleted, f->garbage, strerror(-rc));
	}
	finding(f, f->repair ? "fixed" : "note", "%" PRIu64 " objects (%" PRIu64 " bytes) belong to no file: %s",
		f->garbage, f->garbage_bytes,
		f->repair ? "deleted" : "left by writes that were never committed; --repair deletes them");
	return 0;
}

static void on_meta_finding(void *arg, const char *text)
{
	struct fsck *f = arg;

	finding(f, f->repair ? "fixed" : "error", "metadata: %s", text);
}

/* ---- 3 and 4 -------------------------------------------------------------------------------------- */
static int check_state(struct fsck *f, struct cfs_loop *loop)
{
	struct cfs_store *stores[CFS_NODE_TARGETS_MAX] = { NULL };
	struct cfs_dev *devs[CFS_NODE_TARGETS_MAX] = { NULL };
	struct cfs_meta_params mp = { .map_bytes = CFS_GIB };
	struct cfs_meta *meta = NULL;
	char err[512] = "", path[4096];
	int rc = 0;

	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX; i++) {
		struct cfs_store_params sp = { .clock = cfs_loop_clock(loop) };
		struct cfs_store_stat st;

		if (!f->cfg.targets[i])
			continue;
		rc = cfs_dev_open(loop, f->cfg.targets[i], 0, &devs[i]);
		sp.dev = devs[i];
		if (!rc)
			rc = cfs_store_open(&sp, &stores[i], err, sizeof(err));
		if (!rc)
			rc = list_store(f, stores[i], i);
		if (rc) {
			rc = cmd_fail(FSCK_OPERATIONAL, "fsck", "%s: %s", f->cfg.targets[i], err[0] ? err : strerror(-rc));
			goto out;
		}
		cfs_store_stat(stores[i], &st);
		memcpy(mp.cluster, st.cluster, sizeof(mp.cluster));
	}
	memcpy(f->cluster, mp.cluster, sizeof(f->cluster));
	if (f->n_objects)
		qsort(f->objects, f->n_objects, sizeof(*f->objects), object_cmp);

	snprintf(path, sizeof(path), "%s/shard0", f->cfg.state_dir);
	mp.path = path;
	rc = cfs_meta_open(&mp, &meta, err, sizeof(err));
	if (rc) {
		rc = cmd_fail(FSCK_OPERATIONAL, "fsck", "%s: %s", path, err[0] ? err : strerror(-rc));
		goto out;
	}
	rc = cfs_meta_check(meta, f->repair, on_meta_finding, f);
	if (rc >= 0)
		rc = cfs_meta_walk_extents(meta, on_extent, f);
	if (rc < 0) {
		rc = cmd_fail(FSCK_OPERATIONAL, "fsck", "%s: cannot read the metadata: %s", path, strerror(-rc));
		goto out;
	}
	mark_dead(f, meta);
	rc = drop_garbage(f, loop, stores);
out:
	cfs_meta_close(meta);
	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX; i++) {
		if (stores[i])
			fsck_close_store(loop, stores[i]);
		cfs_dev_close(devs[i]);
	}
	return rc;
}

static int run(struct fsck *f)
{
	struct cfs_loop *loop = NULL;
	char err[512] = "";
	uint64_t fixed_meta;
	int rc = cfs_dev_loop_create(256, (const char *const *)f->cfg.targets, CFS_NODE_TARGETS_MAX, &loop);

	if (rc)
		return cmd_fail(FSCK_OPERATIONAL, "fsck", "io_uring: %s", strerror(-rc));
	rc = check_targets(f, loop);
	if (!rc && fsck_node_run(loop, &f->cfg, false, err, sizeof(err)))
		rc = cmd_fail(f->errors ? FSCK_ERRORS : FSCK_OPERATIONAL, "fsck", "recovery failed: %s", err);
	if (!rc)
		rc = check_state(f, loop);
	fixed_meta = f->fixed - (f->repair && f->garbage ? 1 : 0);
	/* the log knows nothing of what was mended: a checkpoint makes it what a restart begins with */
	if (!rc && fixed_meta && fsck_node_run(loop, &f->cfg, true, err, sizeof(err)))
		rc = cmd_fail(FSCK_OPERATIONAL, "fsck", "repaired, but cannot take a checkpoint: %s", err);
	cfs_loop_destroy(loop);
	return rc;
}

static void usage(FILE *out)
{
	fputs("Usage: claudefs fsck [--repair] [--json] --config FILE\n"
	      "Checks the data of a server that is not running; FILE is its claudefsd.conf.\n"
	      "  --repair   mend what can be mended without guessing\n"
	      "Exits 0 clean, 1 errors corrected, 4 errors left, 8 operational error, 16 wrong use.\n", out);
}

int cmd_fsck(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "config", required_argument, NULL, 'c' }, { "repair", no_argument, NULL, 'r' },
		{ "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct fsck f = { .repair = false };
	const char *config = NULL;
	char err[512] = "", uuid[37];
	int c, rc;

	while ((c = getopt_long(argc, argv, "c:h", opts, NULL)) != -1) {
		switch (c) {
		case 'c': config = optarg; break;
		case 'r': f.repair = true; break;
		case 'j': f.json = true; break;
		default:
			usage(c == 'h' ? stdout : stderr);
			return c == 'h' ? FSCK_OK : FSCK_USAGE;
		}
	}
	if (!config || optind != argc) {
		usage(stderr);
		return FSCK_USAGE;
	}
	cfs_log_init("claudefs fsck", NULL, CFS_LOG_ERR);
	if (cfs_config_init(&f.cfg))
		return cmd_fail(FSCK_OPERATIONAL, "fsck", "out of memory");
	f.findings = json_array();
	if (cfs_config_read(&f.cfg, config, err, sizeof(err)) || cfs_config_check(&f.cfg, err, sizeof(err)))
		rc = cmd_fail(FSCK_OPERATIONAL, "fsck", "%s", err);
	else
		rc = run(&f);
	if (!rc)
		rc = f.errors ? FSCK_ERRORS : f.fixed ? FSCK_FIXED : FSCK_OK;
	cmd_print_uuid(uuid, f.cluster);
	if (f.json && rc < FSCK_OPERATIONAL) {
		json_t *root = json_pack("{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:O}", "schema", 1, "cluster", uuid, "objects",
					 (json_int_t)f.n_objects, "extents", (json_int_t)f.extents, "errors",
					 (json_int_t)f.errors, "fixed", (json_int_t)f.fixed, "notes", (json_int_t)f.notes,
					 "unreferenced_objects", (json_int_t)f.garbage, "findings", f.findings);

		json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
		putchar('\n');
		json_decref(root);
	} else if (rc < FSCK_OPERATIONAL) {
		printf("cluster %s: %zu objects, %" PRIu64 " extents: %" PRIu64 " errors, %" PRIu64 " fixed\n", uuid,
		       f.n_objects, f.extents, f.errors, f.fixed);
	}
	json_decref(f.findings);
	free(f.objects);
	cfs_config_free(&f.cfg);
	return rc;
}
