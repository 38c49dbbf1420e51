/* SPDX-License-Identifier: MIT */
/*
 * Proves that two replicas which apply the same entries are the same byte by byte, whatever their
 * batches, transactions, restarts and map sizes; that a checkpoint, taken later than the snapshot claims, skips
 * what it has; that an environment left open under another boot is thrown away; that malformed
 * entries and foreign environments are refused. And, as a model test, that random names, links,
 * renames and removals end where a simple tree of names ends (seeds printed).
 */
#include "selftests/unit/server/meta/state_test.h"

#include "base/rng.h"

#include <fcntl.h>
#include <pthread.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define ROOT CFS_INO_ROOT

/* ---- a random work load --------------------------------------------------------- */
#define LOG_MAX 12000
struct log {
	struct {
		void *data;
		size_t len;
	} e[LOG_MAX];
	unsigned n;
};

static void log_entry(struct state *s, const void *entry, size_t len)
{
	struct log *l = s->record_arg;

	assert_true(l->n < LOG_MAX);
	l->e[l->n].data = malloc(len);
	assert_non_null(l->e[l->n].data);
	memcpy(l->e[l->n].data, entry, len);
	l->e[l->n++].len = len;
}

static void log_free(struct log *l)
{
	while (l->n)
		free(l->e[--l->n].data);
}

static uint64_t digest(struct cfs_meta *m)
{
	uint64_t d;

	assert_int_equal(cfs_meta_digest(m, &d), 0);
	return d;
}

/* ---- the model: every name as (directory node, name) -> node -------------------- */
#define NODES	400
#define NAMES	6	/* per directory: collisions are wanted */
struct node {
	bool used, dir;
	uint64_t ino;
	unsigned links;
	int child[NAMES];	/* of a directory: node, or -1 */
	int parent;
};

struct tree {
	struct node node[NODES];
};

static const char *const name_of[NAMES] = { "a", "b", "c", "d", "e", "f" };

static void tree_init(struct tree *t)
{
	memset(t, 0, sizeof(*t));
	for (unsigned i = 0; i < NODES; i++)
		for (unsigned n = 0; n < NAMES; n++)
			t->node[i].child[n] = -1;
	t->node[0] = (struct node){ .used = true,
				    .dir = true,
				    .ino = ROOT,
				    .links = 2,
				    .child = { -1, -1, -1, -1, -1, -1 } };
}

static int free_node(struct tree *t)
{
	for (int i = 1; i < NODES; i++)
		if (!t->node[i].used)
			return i;
	return -1;
}

static int random_node(struct tree *t, struct cfs_rng *r, bool dir)
{
	/* ends: node 0 is a directory; a file is looked for a bounded number of times */
	for (unsigned tries = 0; tries < 2000; tries++) {
		int i = (int)cfs_rng_below(r, NODES);

		if (t->node[i].used && t->node[i].dir == dir)
			return i;
	}
	return dir ? 0 : -1;
}

static bool empty(const struct node *d)
{
	for (unsigned n = 0; n < NAMES; n++)
		if (d->child[n] >= 0)
			return false;
	return true;
}

static bool is_below(struct tree *t, int dir, int top)
{
	for (; dir != top; dir = t->node[dir].parent)
		if (!dir)
			return false;
	return true;
}

static void drop_name(struct tree *t, int dir, unsigned n)
{
	struct node *x = &t->node[t->node[dir].child[n]];

	if (x->dir) {
		t->node[dir].links--;
		x->used = false;
	} else if (!--x->links) {
		x->used = false;
	}
	t->node[dir].child[n] = -1;
}

static void model_create(struct state *s, struct tree *t, struct cfs_rng *r)
{
	int d = random_node(t, r, true), x = free_node(t);
	unsigned n = (unsigned)cfs_rng_below(r, NAMES);
	bool dir = cfs_rng_below(r, 2);
	uint64_t ino = 0;
	uint32_t rc;

	if (x < 0)
		return;
	rc = state_mknode(s, &(struct mk){ .dir = t->node[d].ino, .name = name_of[n],
					   .mode = dir ? S_IFDIR | 0755 : S_IFREG | 0644 }, &ino);
	assert_int_equal(rc, t->node[d].child[n] >= 0 ? EEXIST : 0);
	if (rc)
		return;
	t->node[d].child[n] = x;
	t->node[d].links += dir;
	t->node[x] = (struct node){ .used = true,
				    .dir = dir,
				    .ino = ino,
				    .links = dir ? 2 : 1,
				    .parent = d,
				    .child = { -1, -1, -1, -1, -1, -1 } };
}

static void model_remove(struct state *s, struct tree *t, struct cfs_rng *r)
{
	int d = random_node(t, r, true), x;
	unsigned n = (unsigned)cfs_rng_below(r, NAMES);
	bool is_rmdir = cfs_rng_below(r, 2);
	uint32_t want = 0;

	x = t->node[d].child[n];
	if (x < 0)
		want = ENOENT;
	else if (t->node[x].dir != is_rmdir)
		want = is_rmdir ? ENOTDIR : EISDIR;
	else if (is_rmdir && !empty(&t->node[x]))
		want = ENOTEMPTY;
	assert_int_equal(state_remove(s, t->node[d].ino, name_of[n], is_rmdir), want);
	if (!want)
		drop_name(t, d, n);
}

static void model_link(struct state *s, struct tree *t, struct cfs_rng *r)
{
	int d = random_node(t, r, true), x = random_node(t, r, cfs_rng_below(r, 10) == 0);
	unsigned n = (unsigned)cfs_rng_below(r, NAMES);
	uint32_t want;

	if (x < 0)
		return;
	want = t->node[d].child[n] >= 0 ? EEXIST : t->node[x].dir ? EPERM : 0;
	assert_int_equal(state_link(s, t->node[x].ino, t->node[d].ino, name_of[n]), want);
	if (!want) {
		t->node[d].child[n] = x;
		t->node[x].links++;
	}
}

static uint32_t rename_want(struct tree *t, int od, unsigned on, int nd, unsigned nn,
			    uint32_t flags)
{
	int a = t->node[od].child[on], b = t->node[nd].child[nn];

	if (a < 0)
		return ENOENT;
	if (b < 0 && flags & RENAME_EXCHANGE)
		return ENOENT;
	if (b >= 0 && flags & RENAME_NOREPLACE)
		return EEXIST;
	if (a == b)
		return 0;
	if (t->node[a].dir && is_below(t, nd, a))
		return EINVAL;
	if (flags & RENAME_EXCHANGE)
		return b >= 0 && t->node[b].dir && is_below(t, od, b) ? EINVAL : 0;
	if (b < 0)
		return 0;
	if (t->node[a].dir && !t->node[b].dir)
		return ENOTDIR;
	if (!t->node[a].dir && t->node[b].dir)
		return EISDIR;
	return t->node[b].dir && !empty(&t->node[b]) ? ENOTEMPTY : 0;
}

static void model_rename(struct state *s, struct tree *t, struct cfs_rng *r)
{
	static const uint32_t flags_of[] = { 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	int od = random_node(t, r, true), nd = cfs_rng_below(r, 3) ? random_node(t, r, true) : od,
	    a, b;
	unsigned on = (unsigned)cfs_rng_below(r, NAMES), nn = (unsigned)cfs_rng_below(r, NAMES);
	uint32_t flags = flags_of[cfs_rng_below(r, CFS_ARRAY_SIZE(flags_of))];
	uint32_t want = rename_want(t, od, on, nd, nn, flags);

	assert_int_equal(state_rename(s, t->node[od].ino, name_of[on], t->node[nd].ino, name_of[nn],
				      flags),
			 want);
	a = t->node[od].child[on];
	b = t->node[nd].child[nn];
	if (want || a == b)
		return;
	if (b >= 0 && !(flags & RENAME_EXCHANGE)) {
		drop_name(t, nd, nn);
		b = -1;
	}
	t->node[od].child[on] = b;
	t->node[nd].child[nn] = a;
	if (t->node[a].dir) {
		t->node[od].links--;
		t->node[nd].links++;
		t->node[a].parent = nd;
	}
	if (b >= 0 && t->node[b].dir) {
		t->node[nd].links--;
		t->node[od].links++;
		t->node[b].parent = od;
	}
}

static void model_verify(struct state *s, struct tree *t)
{
	uint64_t used = 0, ino;

	for (int i = 0; i < NODES; i++) {
		struct node *x = &t->node[i];
		struct cfs_attr a;

		if (!x->used)
			continue;
		used++;
		a = state_attr(s, x->ino);
		assert_int_equal(cfs_le32_to_cpu(a.nlink), x->links);
		assert_int_equal(S_ISDIR(cfs_le32_to_cpu(a.mode)), x->dir);
		if (!x->dir)
			continue;
		assert_int_equal(cfs_le64_to_cpu(a.dotdot), t->node[x->parent].ino);
		for (unsigned n = 0; n < NAMES; n++) {
			uint32_t rc = state_lookup(s, x->ino, name_of[n], &ino);

			assert_int_equal(rc, x->child[n] < 0 ? ENOENT : 0);
			if (!rc)
				assert_int_equal(ino, t->node[x->child[n]].ino);
		}
	}
	assert_int_equal(state_stat(s).inodes, used);
}

static void work(struct state *s, uint64_t seed, unsigned steps)
{
	struct tree *t = malloc(sizeof(*t));
	struct cfs_rng r;

	assert_non_null(t);
	print_message("seed %lu\n", (unsigned long)seed);
	cfs_rng_seed(&r, seed);
	tree_init(t);
	for (unsigned i = 0; i < steps; i++) {
		switch (cfs_rng_below(&r, 8)) {
		case 0: case 1: case 2:
			model_create(s, t, &r);
			break;
		case 3:
			model_link(s, t, &r);
			break;
		case 4: case 5:
			model_remove(s, t, &r);
			break;
		default:
			model_rename(s, t, &r);
		}
		if (i % 500 == 499) {
			model_verify(s, t);
			state_check(s);
		}
	}
	free(t);
}

static void test_model(void **arg)
{
	struct state s;

	(void)arg;
	for (uint64_t seed = 100; seed < 103; seed++) {
		state_start(&s);
		work(&s, seed, 4000);
		state_stop(&s);
	}
}

/* ---- replicas ------------------------------------------------------------------- */
static unsigned sinks;
static void sink_count(void *arg, unsigned rec, uint32_t status, const void *body, uint32_t len)
{
	(void)arg; (void)rec; (void)status; (void)body; (void)len;
	sinks++;
}

/*
 * The same entries, many to a transaction: over a map that must grow in the middle of one, with readers, refused entries and entries
 * that come again in between; a process that ends without settling finds what was settled.
 */
static void apply_in_groups(const struct log *l, uint64_t want)
{
	char dir[] = "/tmp/claudefs-state.XXXXXX";
	struct cfs_meta_stat st;
	unsigned i, settled = 0;
	struct cfs_meta *m;
	int status;
	pid_t pid;

	assert_non_null(mkdtemp(dir));
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	m = pid ? NULL : state_open_at(dir, 1 << 20);
	if (!pid && cfs_meta_group(m, true))
		_exit(1);
	for (i = 0; !pid && i < l->n / 2; i++) {
		sinks = 0;
		if (cfs_meta_apply(m, i + 1, l->e[i].data, l->e[i].len, sink_count, NULL) || sinks != 1 ||
		    cfs_meta_apply(m, i + 1, l->e[i].data, l->e[i].len, sink_count, NULL) || sinks != 1 ||
		    cfs_meta_applied(m) != i + 1)
			_exit(2);
		if (i % 997 == 996 && (cfs_meta_stat(m, &st) || st.applied_index != i + 1 || cfs_meta_unsettled(m)))
			_exit(3);
		if (i % 499 == 498)
			digest(m);
		if (i % 701 == 700 && (cfs_meta_apply(m, i + 2, "nonsense", 8, NULL, NULL) != -EBADMSG ||
				       cfs_meta_applied(m) != i + 1))
			_exit(4);
		if (i % 333 == 332)
			settled = i + 1;
		if (i % 333 == 332 && (cfs_meta_settle(m) || cfs_meta_unsettled(m)))
			_exit(5);
	}
	if (!pid)
		_exit(settled && cfs_meta_unsettled(m) ? 0 : 6);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	m = state_open_at(dir, 1 << 20);
	i = (unsigned)cfs_meta_applied(m);
	assert_true(i >= l->n / 2 / 333 * 333 && i < l->n / 2);
	assert_int_equal(cfs_meta_group(m, true), 0);
	for (; i < l->n; i++)
		assert_int_equal(cfs_meta_apply(m, i + 1, l->e[i].data, l->e[i].len, i % 3 || i > l->n / 4 * 3 ? NULL : sink_count, NULL), 0);
	assert_true(cfs_meta_unsettled(m));
	assert_int_equal(cfs_meta_group(m, false), 0);
	assert_int_equal(digest(m), want);
	assert_int_equal(cfs_meta_check(m, false, state_print, NULL), 0);
	cfs_meta_close(m);
	state_rmdir(dir);
}

static void limit_files(rlim_t bytes)
{
	struct rlimit rl;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &rl), 0);
	rl.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &rl), 0);
}

/*
 * What was answered cannot be committed: nobody gets an older state to see, nothing more is applied, and when it can be written
 * again all of it is there. The file that must not grow stands for a file system that is full.
 */
static void test_group_fails(void **arg)
{
	struct cfs_mknode_req mk = { .dir = cfs_cpu_to_le64(ROOT), .mode = cfs_cpu_to_le32(S_IFREG), .name_len = cfs_cpu_to_le32(1) };
	static struct entry e;
	uint64_t f[8], applied;
	char big[3000], name[2] = "0", file[96], body[sizeof(mk) + 1];
	struct stat st;
	struct state s;

	(void)arg;
	signal(SIGXFSZ, SIG_IGN);
	memset(big, 'b', sizeof(big));
	state_start(&s);
	assert_int_equal(cfs_meta_group(s.m, true), 0);
	state_file(&s, ROOT, "before");
	assert_int_equal(cfs_meta_settle(s.m), 0);
	applied = cfs_meta_applied(s.m);
	snprintf(file, sizeof(file), "%s/data.mdb", s.dir);
	assert_int_equal(stat(file, &st), 0);
	limit_files((rlim_t)st.st_size);
	for (unsigned i = 0; i < CFS_ARRAY_SIZE(f); i++, name[0]++) {
		f[i] = state_file(&s, ROOT, name);
		assert_int_equal(state_commit_inline(&s, f[i], big, sizeof(big)), 0);
	}
	assert_int_equal(state_lookup(&s, ROOT, "7", NULL), 0);	/* seen, though not settled */
	assert_int_equal(cfs_meta_applied(s.m), s.index);
	assert_int_equal(cfs_meta_settle(s.m), -EFBIG);
	assert_true(cfs_meta_unsettled(s.m));
	assert_in_range(cfs_meta_applied(s.m), applied, s.index - 1);
	assert_int_equal(state_lookup(&s, ROOT, "before", NULL), EIO);
	memcpy(body, &mk, sizeof(mk));
	body[sizeof(mk)] = 'x';
	entry_init(&e, s.now + 1);
	entry_add(&e, CFS_OP_MKNODE, s.session, s.slot, s.seq[s.slot] + 1, body, sizeof(body), NULL, 0);
	sinks = 0;
	assert_int_equal(cfs_meta_apply(s.m, s.index + 1, e.buf, e.len, sink_count, NULL), -EFBIG);
	assert_int_equal(sinks, 0);
	limit_files(RLIM_INFINITY);
	assert_int_equal(cfs_meta_apply(s.m, s.index + 1, e.buf, e.len, sink_count, NULL), 0);
	assert_int_equal(sinks, 1);
	assert_int_equal(cfs_meta_applied(s.m), s.index + 1);
	for (name[0] = '0'; name[0] < '8'; name[0]++)
		assert_int_equal(state_lookup(&s, ROOT, name, NULL), 0);
	assert_int_equal(state_lookup(&s, ROOT, "x", NULL), 0);
	assert_int_equal(cfs_meta_settle(s.m), 0);
	/* killed with something that is not settled: it is as if it had not been applied */
	s.index++;
	s.seq[s.slot]++;
	s.now++;
	state_file(&s, ROOT, "y");
	cfs_meta_lose(s.m);
	assert_int_equal(cfs_meta_applied(s.m), s.index - 1);
	assert_int_equal(state_lookup(&s, ROOT, "y", NULL), ENOENT);
	assert_int_equal(cfs_meta_group(s.m, false), 0);
	state_stop(&s);
}

static void test_replicas(void **arg)
{
	static struct log l;
	struct cfs_meta *m;
	struct state s;
	char dir[] = "/tmp/claudefs-state.XXXXXX", ckpt[80];
	char big[3000];
	uint64_t f;
	int fd;

	(void)arg;
	memset(big, 'b', sizeof(big));
	state_start(&s);
	/*
	 * the first replica was opened before: its first entry opened the session, and is made
	 * again here
	 */
	cfs_meta_close(s.m);
	state_rmdir(s.dir);
	memset(s.seq, 0, sizeof(s.seq));
	s.index = 0;
	s.m = state_open_at(s.dir, 1 << 20);	/* too small: it must grow by itself */
	s.record = log_entry;
	s.record_arg = &l;
	s.session = state_session(&s, "first");
	work(&s, 7, 3000);
	for (unsigned i = 0; i < 3000; i++) {
		char name[16];

		snprintf(name, sizeof(name), "x%u", i);
		f = state_file(&s, ROOT, name);
		assert_int_equal(state_commit_inline(&s, f, big, sizeof(big)), 0);
	}
	assert_true(state_stat(&s).db_bytes > 10 << 20);
	/* the second one, with a restart in the middle and a large map */
	assert_non_null(mkdtemp(dir));
	m = state_open_at(dir, 1 << 30);
	for (unsigned i = 0; i < l.n; i++) {
		if (i == l.n / 2) {
			cfs_meta_close(m);
			m = state_open_at(dir, 1 << 30);
			assert_int_equal(cfs_meta_applied(m), i);
		}
		assert_int_equal(cfs_meta_apply(m, i + 1, l.e[i].data, l.e[i].len, NULL, NULL), 0);
	}
	assert_int_equal(digest(m), digest(s.m));
	apply_in_groups(&l, digest(s.m));
	/* again: nothing happens, nobody is told */
	sinks = 0;
	assert_int_equal(
		cfs_meta_apply(m, l.n, l.e[l.n - 1].data, l.e[l.n - 1].len, sink_count, NULL), 0);
	assert_int_equal(sinks, 0);
	cfs_meta_close(m);
	/* a checkpoint of index n, restored; entries from before it are skipped */
	assert_int_equal(cfs_meta_discard(dir), 0);
	snprintf(ckpt, sizeof(ckpt), "%s/data.mdb", dir);
	fd = open(ckpt, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(cfs_meta_checkpoint(s.m, fd), 0);
	close(fd);
	state_file(&s, ROOT, "after");
	m = state_open_at(dir, 1 << 20);	/* smaller than the checkpoint */
	assert_int_equal(cfs_meta_applied(m), l.n - 1);
	for (unsigned i = l.n - 100; i < l.n; i++)
		assert_int_equal(
			cfs_meta_apply(m, i + 1, l.e[i].data, l.e[i].len, sink_count, NULL), 0);
	assert_int_equal(sinks, 1);
	assert_int_equal(digest(m), digest(s.m));
	cfs_meta_close(m);
	state_rmdir(dir);
	log_free(&l);
	state_stop(&s);
}

/* checkpoints from a helper thread, while entries are applied and the map grows: each is a sound state */
struct copier {
	struct cfs_meta *m;
	char dir[4][32];
	int rc;
};

static void *copy_thread(void *arg)
{
	struct copier *c = arg;
	char file[80];

	for (unsigned i = 0; i < 4 && !c->rc; i++) {
		int fd;

		snprintf(file, sizeof(file), "%s/data.mdb", c->dir[i]);
		fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		c->rc = fd < 0 ? -errno : cfs_meta_checkpoint(c->m, fd);
		if (fd >= 0)
			close(fd);
		usleep(20000);
	}
	return NULL;
}

static void test_checkpoint_beside(void **arg)
{
	struct copier c = { .rc = 0 };
	struct cfs_meta_stat before, st;
	char big[4096], name[16];
	struct cfs_meta *m;
	struct state s;
	pthread_t thread;

	(void)arg;
	memset(big, 'b', sizeof(big));
	state_start(&s);
	cfs_meta_close(s.m);
	s.m = state_open_at(s.dir, 1 << 20);
	before = state_stat(&s);
	c.m = s.m;
	for (unsigned i = 0; i < 4; i++) {
		strcpy(c.dir[i], "/tmp/claudefs-state.XXXXXX");
		assert_non_null(mkdtemp(c.dir[i]));
	}
	assert_int_equal(pthread_create(&thread, NULL, copy_thread, &c), 0);
	for (unsigned i = 0; i < 4000; i++) {
		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(state_commit_inline(&s, state_file(&s, ROOT, name), big, sizeof(big)), 0);
	}
	pthread_join(thread, NULL);
	assert_int_equal(c.rc, 0);
	for (unsigned i = 0; i < 4; i++) {
		m = state_open_at(c.dir[i], 1 << 20);
		assert_int_equal(cfs_meta_check(m, false, state_print, NULL), 0);
		assert_int_equal(cfs_meta_stat(m, &st), 0);
		assert_true(st.applied_index >= before.applied_index);
		before = st;
		cfs_meta_close(m);
		state_rmdir(c.dir[i]);
	}
	state_stop(&s);
}

static void test_open(void **arg)
{
	struct cfs_meta_params p = { .map_bytes = 1 << 20 };
	struct cfs_meta *m;
	struct state s;
	char file[80], err[256];
	int fd;

	(void)arg;
	state_start(&s);
	state_file(&s, ROOT, "f");
	snprintf(file, sizeof(file), "%s/live", s.dir);
	assert_int_equal(access(file, F_OK), 0);
	cfs_meta_close(s.m);
	assert_int_not_equal(access(file, F_OK), 0);
	/* another cluster, another shard */
	p.path = s.dir;
	memcpy(p.cluster, "somebody else's!", 16);
	assert_int_equal(cfs_meta_open(&p, &m, err, sizeof(err)), -EMEDIUMTYPE);
	assert_non_null(strstr(err, "another cluster"));
	memcpy(p.cluster, state_cluster, 16);
	p.shard = 1;
	assert_int_equal(cfs_meta_open(&p, &m, err, sizeof(err)), -EMEDIUMTYPE);
	p.path = "/proc/none/meta";
	assert_int_equal(cfs_meta_open(&p, &m, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "/proc/none/meta"));
	/* the same boot: all is there */
	s.m = state_open_at(s.dir, 1 << 20);
	assert_int_equal(cfs_meta_applied(s.m), s.index);
	assert_int_equal(state_lookup(&s, ROOT, "f", NULL), 0);
	cfs_meta_close(s.m);
	/* another boot had it open: it is empty again */
	fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "01234567-0123-0123-0123-012345678901", 36), 36);
	close(fd);
	s.m = state_open_at(s.dir, 1 << 20);
	assert_int_equal(cfs_meta_applied(s.m), 0);
	assert_int_equal(state_lookup(&s, ROOT, "f", NULL), ENOENT);
	/* another shard has no root, and its inode numbers say which it is */
	cfs_meta_close(s.m);
	assert_int_equal(cfs_meta_discard(s.dir), 0);
	p.path = s.dir;
	assert_int_equal(cfs_meta_open(&p, &s.m, err, sizeof(err)), 0);
	assert_true(state_gone(&s, ROOT));
	assert_int_equal(state_stat(&s).inodes, 0);
	state_stop(&s);
}

static void test_malformed(void **arg)
{
	static struct entry e;
	static uint8_t copy[4096] __attribute__((aligned(8)));
	struct cfs_log_hdr *h = (struct cfs_log_hdr *)copy;
	struct cfs_log_rec *r = (struct cfs_log_rec *)(copy + sizeof(*h));
	struct state s;
	uint64_t before;

	(void)arg;
	state_start(&s);
	before = digest(s.m);
	entry_init(&e, s.now);
	entry_add(&e, CFS_LOG_NOOP, 0, CFS_SLOT_NONE, 0, "12345", 5, (uint64_t[]){ 1 }, 1);
	assert_int_equal(e.len, 32 + 48);
#define REFUSED(change)                                                                         \
	do {                                                                                    \
		memcpy(copy, e.buf, e.len);                                                     \
		size_t len = e.len;                                                             \
		change;                                                                         \
		sinks = 0;                                                                      \
		assert_int_equal(cfs_meta_apply(s.m, s.index + 1, copy, len, sink_count, NULL), \
				 -EBADMSG);                                                     \
		assert_int_equal(sinks, 0);                                                     \
		assert_int_equal(digest(s.m), before);                                          \
	} while (0)
	REFUSED(h->magic ^= 1);
	REFUSED(h->version ^= 1);
	REFUSED(h->n = cfs_cpu_to_le16(2));
	REFUSED(h->n = 0);
	REFUSED(h->n = cfs_cpu_to_le16(CFS_LOG_BATCH_MAX + 1));
	REFUSED(h->time.nsec = cfs_cpu_to_le32(1000000000));
	REFUSED(r->opcode = cfs_cpu_to_le16(0x1006));
	REFUSED(r->opcode = cfs_cpu_to_le16(CFS_OP_LOOKUP));
	REFUSED(r->body_len = cfs_cpu_to_le32(9));
	REFUSED(r->body_len = cfs_cpu_to_le32(0xffffffff));
	REFUSED(r->n_holders = cfs_cpu_to_le16(2));
	REFUSED(len -= 8);
	REFUSED(len += 8);
	REFUSED(len = 31);
	sinks = 0;
	assert_int_equal(cfs_meta_apply(s.m, s.index + 1, e.buf, e.len, sink_count, NULL), 0);
	assert_int_equal(sinks, 1);
	state_stop(&s);
}

/* many requests in one entry: each has its own result, in order */
static void sink_status(void *arg, unsigned rec, uint32_t status, const void *body, uint32_t len)
{
	uint32_t *list = arg;

	(void)body; (void)len;
	list[rec] = status;
}

static void test_batch(void **arg)
{
	static struct entry e;
	struct {
		struct cfs_mknode_req req;
		char name[1];
	} mk = { .req = { .dir = cfs_cpu_to_le64(ROOT), .name_len = cfs_cpu_to_le32(1) } };
	uint32_t status[CFS_LOG_BATCH_MAX];
	struct state s;

	(void)arg;
	state_start(&s);
	entry_init(&e, s.now);
	for (unsigned i = 0; i < CFS_LOG_BATCH_MAX; i++) {
		mk.name[0] = (char)('A' + i % 40);
		entry_add(&e, CFS_OP_MKNODE, s.session, i % 4, i / 4 + 1, &mk, sizeof(mk.req) + 1,
			  NULL, 0);
	}
	assert_int_equal(cfs_meta_apply(s.m, ++s.index, e.buf, e.len, sink_status, status), 0);
	for (unsigned i = 0; i < CFS_LOG_BATCH_MAX; i++)
		assert_int_equal(status[i], i < 40 ? 0 : EEXIST);
	assert_int_equal(state_stat(&s).inodes, 41);
	state_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model), cmocka_unit_test(test_replicas), cmocka_unit_test(test_group_fails),
		cmocka_unit_test(test_checkpoint_beside), cmocka_unit_test(test_open),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_batch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
