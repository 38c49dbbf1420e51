// SPDX-License-Identifier: MIT
/* mount_opts.c - what can be said after -o, the source of a mount, and where its control socket is. Pure text. */
#include "client/mount.h"

#include "base/hash.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_PORT	"9510"
#define ESCAPED_MAX	80u	/* longer mount points are known by a hash */

enum opt_kind { O_FLAG, O_FLAG_OFF, O_TIER_FLAG, O_SIZE, O_COUNT, O_PATH, O_CACHE, O_TIER, O_IGNORE };

static const struct opt {
	const char *name;
	enum opt_kind kind;
	size_t at;
	uint64_t min, max;
} opts[] = {
#define AT(field) offsetof(struct cfs_mount_opts, field)
	{ "ro", O_FLAG, AT(ro), 0, 0 },
	{ "rw", O_FLAG_OFF, AT(ro), 0, 0 },
	{ "nosuid", O_FLAG, AT(nosuid), 0, 0 },
	{ "suid", O_FLAG_OFF, AT(nosuid), 0, 0 },
	{ "nodev", O_FLAG, AT(nodev), 0, 0 },
	{ "dev", O_FLAG_OFF, AT(nodev), 0, 0 },
	{ "noexec", O_FLAG, AT(noexec), 0, 0 },
	{ "exec", O_FLAG_OFF, AT(noexec), 0, 0 },
	{ "sync", O_FLAG, AT(sync), 0, 0 },
	{ "async", O_FLAG_OFF, AT(sync), 0, 0 },
	{ "dirsync", O_FLAG, AT(dirsync), 0, 0 },
	{ "allow_other", O_FLAG, AT(allow_other), 0, 0 },
	{ "softerr", O_FLAG, AT(softerr), 0, 0 },
	{ "hard", O_FLAG_OFF, AT(softerr), 0, 0 },
	{ "debug", O_FLAG, AT(debug), 0, 0 },
	{ "cachedir", O_PATH, AT(cachedir), 0, 0 },
	{ "log", O_PATH, AT(logfile), 0, 0 },
	{ "cachesize", O_SIZE, AT(cache_bytes), 1 << 20, 1ull << 50 },
	{ "dirtysize", O_SIZE, AT(dirty_bytes), 1 << 20, 1ull << 50 },
	{ "cache_entries", O_SIZE, AT(cache_entries), 256, 1ull << 32 },
	{ "timeo", O_COUNT, AT(timeo_s), 1, 86400 },
	{ "workers_max", O_COUNT, AT(workers_max), 2, 4096 },
	{ "cache", O_CACHE, AT(cache_none), 0, 0 },
	{ "nothrough", O_FLAG, AT(no_through), 0, 0 },
	{ "through", O_FLAG_OFF, AT(no_through), 0, 0 },
	{ "uring", O_TIER, AT(uring), 0, 0 },
	{ "passthrough", O_TIER, AT(passthrough), 0, 0 },
	{ "pass_min", O_SIZE, AT(pass_min), 0, 1ull << 50 },
	{ "pass_max", O_SIZE, AT(pass_max), 0, 1ull << 50 },
	{ "bpf", O_TIER, AT(bpf), 0, 0 },
	{ "persist", O_TIER_FLAG, AT(persist), 0, 0 },
	{ "persist_deaths", O_COUNT, AT(persist_deaths), 1, 4000 },
	{ "metrics", O_COUNT, AT(metrics_port), 1, 65535 },
	{ "bpf_mem", O_SIZE, AT(bpf_mem), 1 << 16, 1ull << 36 },
#undef AT
	/* always so, or nothing to us */
	{ "default_permissions", O_IGNORE, 0, 0, 0 },
	{ "noatime", O_IGNORE, 0, 0, 0 },
	{ "nodiratime", O_IGNORE, 0, 0, 0 },
	{ "relatime", O_IGNORE, 0, 0, 0 },
	{ "defaults", O_IGNORE, 0, 0, 0 },
	{ "auto", O_IGNORE, 0, 0, 0 },
	{ "noauto", O_IGNORE, 0, 0, 0 },
	{ "user", O_IGNORE, 0, 0, 0 },
	{ "users", O_IGNORE, 0, 0, 0 },
	{ "nouser", O_IGNORE, 0, 0, 0 },
	{ "owner", O_IGNORE, 0, 0, 0 },
	{ "_netdev", O_IGNORE, 0, 0, 0 },
	{ "nofail", O_IGNORE, 0, 0, 0 },
};

void cfs_mount_opts_init(struct cfs_mount_opts *o)
{
	memset(o, 0, sizeof(*o));
	o->cache_entries = 1000000;
	o->persist = CFS_TIER_WANT_OFF;
	o->persist_deaths = 5;
	o->pass_min = 64 << 10;
	o->pass_max = 256 << 20;
	o->timeo_s = 60;
	o->workers_max = 64;
	o->allow_other = geteuid() == 0;
	o->nosuid = o->nodev = geteuid() != 0;
}

static int parse_number(const char *text, bool sizes, uint64_t min, uint64_t max, uint64_t *ret)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;
	uint64_t v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno || end == text || *text == '-')
		return -EINVAL;
	if (sizes && *end) {
		unit = strchr(units, toupper((unsigned char)*end));
		if (!unit || end[1])
			return -EINVAL;
		for (int i = 0; i <= unit - units; i++)
			if (__builtin_mul_overflow(v, 1024ull, &v))
				return -ERANGE;
	} else if (*end) {
		return -EINVAL;
	}
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

static int parse_tier(const char *text, enum cfs_tier_want *ret)
{
	static const char *const words[] = { [CFS_TIER_WANT_AUTO] = "auto", [CFS_TIER_WANT_ON] = "on",
					     [CFS_TIER_WANT_OFF] = "off" };

	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!strcmp(text, words[i])) {
			*ret = (enum cfs_tier_want)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int set_opt(struct cfs_mount_opts *o, const struct opt *opt, const char *value, char *err, size_t errlen)
{
	void *field = (char *)o + opt->at;
	uint64_t v = 0;
	int rc = 0;

	if ((opt->kind == O_FLAG || opt->kind == O_FLAG_OFF) && value) {
		snprintf(err, errlen, "option '%s' takes no value", opt->name);
		return -EINVAL;
	}
	if (opt->kind >= O_SIZE && opt->kind != O_IGNORE && (!value || !*value)) {
		snprintf(err, errlen, "option '%s' needs a value", opt->name);
		return -EINVAL;
	}
	switch (opt->kind) {
	case O_FLAG:
	case O_FLAG_OFF:
		*(bool *)field = opt->kind == O_FLAG;
		break;
	case O_SIZE:
		rc = parse_number(value, true, opt->min, opt->max, field);
		break;
	case O_COUNT:
		rc = parse_number(value, false, opt->min, opt->max, &v);
		if (!rc)
			*(uint32_t *)field = (uint32_t)v;
		break;
	case O_PATH:
		if (*value != '/' || strlen(value) >= PATH_MAX)
			rc = -EINVAL;
		else
			strcpy(field, value);
		break;
	case O_CACHE:
		if (strcmp(value, "strict") && strcmp(value, "none"))
			rc = -EINVAL;
		else
			o->cache_none = !strcmp(value, "none");
		break;
	case O_TIER_FLAG:
	case O_TIER:
		rc = parse_tier(value ? value : "on", field);
		break;
	case O_IGNORE:
		break;
	}
	if (rc == -ERANGE)
		snprintf(err, errlen, "option '%s=%s': must be %llu to %llu", opt->name, value,
			 (unsigned long long)opt->min, (unsigned long long)opt->max);
	else if (rc)
		snprintf(err, errlen, "option '%s=%s': %s", opt->name, value,
			 opt->kind == O_PATH ? "must be an absolute path" :
			 opt->kind == O_CACHE ? "must be strict or none" :
			 opt->kind == O_TIER || opt->kind == O_TIER_FLAG ? "must be auto, on or off" : "not a number");
	return rc ? -EINVAL : 0;
}

static int parse_word(struct cfs_mount_opts *o, char *word, bool sloppy, char *err, size_t errlen)
{
	char *value = strchr(word, '=');

	if (!*word || !strncmp(word, "x-", 2))
		return 0;
	if (value)
		*value++ = 0;
	for (size_t i = 0; i < sizeof(opts) / sizeof(opts[0]); i++)
		if (!strcmp(word, opts[i].name))
			return set_opt(o, &opts[i], value, err, errlen);
	if (sloppy)
		return 0;
	snprintf(err, errlen, "unknown option '%s' (see mount.claudefs(8))", word);
	return -EINVAL;
}

int cfs_mount_parse_options(struct cfs_mount_opts *o, const char *text, bool sloppy, char *err, size_t errlen)
{
	char *copy = strdup(text), *at = copy, *word;
	int rc = copy ? 0 : -ENOMEM;

	while (!rc && (word = strsep(&at, ",")))
		rc = parse_word(o, word, sloppy, err, errlen);
	free(copy);
	return rc;
}

/* one HOST[:PORT] with the port filled in */
static int parse_server(struct cfs_mount_opts *o, const char *text, char *err, size_t errlen)
{
	const char *port = NULL, *close = strchr(text, ']');
	size_t room = sizeof(o->servers[0]);
	bool ok = *text && !strchr(text, '/') && !strchr(text, ' ');

	if (*text == '[') {
		ok = ok && close && (!close[1] || close[1] == ':');
		port = ok && close[1] ? close + 2 : NULL;
	} else if (strchr(text, ':')) {
		port = strchr(text, ':') + 1;
		ok = ok && port - 1 > text && !strchr(port, ':');
	}
	if (ok && port)
		ok = *port && strspn(port, "0123456789") == strlen(port) && strlen(port) <= 5 && atoi(port) > 0 &&
		     atoi(port) < 65536;
	if (!ok || o->n_servers == CFS_MOUNT_SERVERS_MAX ||
	    (size_t)snprintf(o->servers[o->n_servers], room, "%s%s%s", text, port ? "" : ":", port ? "" : DEFAULT_PORT) >=
		    room) {
		snprintf(err, errlen, ok ? "too many servers, or a name that is too long: '%s'" :
			 "'%s' is not HOST or HOST:PORT", text);
		return -EINVAL;
	}
	o->n_servers++;
	return 0;
}

int cfs_mount_parse_source(struct cfs_mount_opts *o, const char *text, char *err, size_t errlen)
{
	char *copy = strdup(text), *at = copy, *word, *path;
	int rc = copy ? 0 : -ENOMEM;

	o->n_servers = 0;
	path = copy ? strchr(copy, '/') : NULL;
	if (path && (path[1] || path == copy || path[-1] != ':')) {
		snprintf(err, errlen, "'%s': only the root can be mounted: SERVER[,SERVER...]:/", text);
		rc = -EINVAL;
	} else if (path) {
		path[-1] = 0;
	}
	while (!rc && (word = strsep(&at, ",")))
		rc = parse_server(o, word, err, errlen);
	free(copy);
	return rc;
}

/* ---- the control socket ----------------------------------------------------------------------- */
/* absolute, without symlinks in what leads to it; the last component is not looked at */
static int canonical(const char *dir, char *out, size_t len)
{
	char copy[PATH_MAX], real[PATH_MAX], *slash, *last;
	size_t n = strlen(dir);

	if (!n || n >= sizeof(copy))
		return -ENAMETOOLONG;
	strcpy(copy, dir);
	while (n > 1 && copy[n - 1] == '/')
		copy[--n] = 0;
	slash = strrchr(copy, '/');
	last = slash ? slash + 1 : copy;
	if (!strcmp(last, ".") || !strcmp(last, "..") || !*last) {
		if (!realpath(copy, real))
			return -errno;
		return (size_t)snprintf(out, len, "%s", real) >= len ? -ENAMETOOLONG : 0;
	}
	if (slash == copy)
		strcpy(real, "/");
	else if (slash)
		*slash = 0;
	if (slash != copy && !realpath(slash ? copy : ".", real))
		return -errno;
	n = (size_t)snprintf(out, len, "%s%s%s", real, real[1] ? "/" : "", last);
	return n >= len ? -ENAMETOOLONG : 0;
}

int cfs_mount_control_path(const char *dir, char *path, size_t len)
{
	char full[PATH_MAX], name[ESCAPED_MAX + 8], base[80];
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	size_t n = 0;
	int rc = canonical(dir, full, sizeof(full));

	if (rc)
		return rc;
	for (const char *p = full + 1; *p && n < ESCAPED_MAX; p++) {
		if (*p == '/')
			name[n++] = '-';
		else if (isalnum((unsigned char)*p) || *p == '.' || *p == '_')
			name[n++] = *p;
		else
			n += (size_t)snprintf(name + n, sizeof(name) - n, "\\x%02x", (unsigned char)*p);
	}
	name[n] = 0;
	if (n >= ESCAPED_MAX)
		snprintf(name, sizeof(name), "%016llx", (unsigned long long)cfs_hash64(full, strlen(full), 0));
	snprintf(base, sizeof(base), "/run/claudefs");
	/* who is not root has a directory of his own; but he may also ask root's mounts */
	if (geteuid() && ((size_t)snprintf(path, len, "%s/%s.sock", base, name) >= len || access(path, F_OK))) {
		if (runtime && strlen(runtime) < 40)
			snprintf(base, sizeof(base), "%s/claudefs", runtime);
		else
			snprintf(base, sizeof(base), "/tmp/claudefs-%u", (unsigned)geteuid());
	}
	if ((size_t)snprintf(path, len, "%s/%s.sock", base, name) >= len)
		return -ENAMETOOLONG;
	return 0;
}
