/* SPDX-License-Identifier: MIT */
/* config.c - see config.h. */
#include "server/cluster/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <ifaddrs.h>
#include <ini.h>
#include <inttypes.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "dev/nvme.h"
#include "server/cluster/raft_wire.h"

#define DEFAULT_STATE_DIR	"/var/lib/claudefs"
#define LEASE_MIN_MS		1000u
#define LEASE_MAX_MS		300000u
#define CHECKPOINT_MIN_BYTES	(1 * CFS_MIB)
#define CHECKPOINT_MAX_BYTES	(16 * CFS_GIB)

int cfs_config_init(struct cfs_config *c)
{
	memset(c, 0, sizeof(*c));
	if (asprintf(&c->listen, "127.0.0.1:%d", CFS_DEFAULT_PORT) < 0)
		return -ENOMEM;
	c->state_dir = strdup(DEFAULT_STATE_DIR);
	c->log_level = CFS_LOG_INFO;
	c->lease_ms = CFS_NODE_LEASE_MS;
	c->checkpoint_bytes = CFS_NODE_CHECKPOINT_BYTES;
	return c->state_dir ? 0 : -ENOMEM;
}

void cfs_config_free(struct cfs_config *c)
{
	free(c->listen);
	free(c->advertise);
	free(c->state_dir);
	free(c->pid_file);
	free(c->log_file);
	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX; i++)
		free(c->targets[i]);
	memset(c, 0, sizeof(*c));
}

/* ---- values: each returns NULL, or what is wrong --------------------------------------------- */

static const char *set_text(char **dst, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return "out of memory";
	free(*dst);
	*dst = copy;
	return NULL;
}

static const char *set_path(char **dst, const char *value)
{
	if (!*value)
		return "a path is needed";
	if (strlen(value) > PATH_MAX - 64)
		return "the path is too long";
	return set_text(dst, value);
}

/* host:port or [v6]:port; the resolver has the last word on the host */
static const char *set_addr(char **dst, const char *value)
{
	const char *colon = strrchr(value, ':');
	char *end;
	long port;

	if (!colon || colon == value || !isdigit((unsigned char)colon[1]))
		return "an address is host:port or [v6]:port";
	if (value[0] == '[' ? colon[-1] != ']' :
			      memchr(value, ':', (size_t)(colon - value)) != NULL)
		return "an address is host:port or [v6]:port";
	port = strtol(colon + 1, &end, 10);
	if (*end || port < 0 || port > 65535)
		return "the port is a number up to 65535";
	if (strlen(value) > CFS_RAFT_ADDR_MAX)
		return "the address is longer than 55 bytes";
	for (const char *p = value; *p; p++)
		if (isspace((unsigned char)*p))
			return "an address has no spaces";
	return set_text(dst, value);
}

/* a number, with K, M, G for powers of 1024 where `size` */
static const char *set_number(uint64_t *dst, const char *value, uint64_t min, uint64_t max,
			      bool size)
{
	static char why[96];
	uint64_t v, unit = 1;
	char *end;

	errno = 0;
	v = strtoull(value, &end, 10);
	if (!isdigit((unsigned char)value[0]) || errno)
		return "a number is needed";
	if (size && *end) {
		unit = *end == 'K' ? CFS_KIB : *end == 'M' ? CFS_MIB : *end == 'G' ? CFS_GIB : 0;
		end++;
	}
	if (*end || !unit)
		return size ? "a size is a number with K, M or G after it" : "a number is needed";
	if (v > max / unit || v * unit < min) {
		snprintf(why, sizeof(why), "it must be from %" PRIu64 " to %" PRIu64, min, max);
		return why;
	}
	*dst = v * unit;
	return NULL;
}

static const char *set_level(enum cfs_log_level *dst, const char *value)
{
	static const struct {
		const char *name;
		enum cfs_log_level level;
	} levels[] = {
		{ "error", CFS_LOG_ERR },
		{ "warning", CFS_LOG_WARN },
		{ "info", CFS_LOG_INFO },
		{ "debug", CFS_LOG_DEBUG },
	};

	for (unsigned i = 0; i < CFS_ARRAY_SIZE(levels); i++)
		if (!strcmp(value, levels[i].name)) {
			*dst = levels[i].level;
			return NULL;
		}
	return "it must be error, warning, info or debug";
}

static const char *add_target(struct cfs_config *c, unsigned at, const char *value)
{
	const char *why = set_path(&c->targets[at], value);

	if (!why)
		c->n_targets++;
	return why;
}

static const struct {
	const char *name;
	uint32_t flags;
} polls[] = {
	{ "off", 0 },
	{ "iopoll", CFS_NVME_IOPOLL },
	{ "sqpoll", CFS_NVME_SQPOLL },
	{ "both", CFS_NVME_IOPOLL | CFS_NVME_SQPOLL },
};

static const char *set_poll(uint32_t *dst, const char *value)
{
	for (unsigned i = 0; i < CFS_ARRAY_SIZE(polls); i++)
		if (!strcmp(value, polls[i].name)) {
			*dst = polls[i].flags;
			return NULL;
		}
	return "it must be off, iopoll, sqpoll or both";
}

static const char *poll_name(uint32_t flags)
{
	unsigned i = 0;

	while (polls[i].flags != flags)
		i++;
	return polls[i].name;
}

static const char *set(struct cfs_config *c, const char *key, const char *value)
{
	const char *why;
	uint64_t v;

	if (!strcmp(key, "listen"))
		return set_addr(&c->listen, value);
	if (!strcmp(key, "advertise"))
		return set_addr(&c->advertise, value);
	if (!strcmp(key, "state_dir"))
		return set_path(&c->state_dir, value);
	if (!strcmp(key, "pid_file"))
		return set_path(&c->pid_file, value);
	if (!strcmp(key, "log_file"))
		return set_path(&c->log_file, value);
	if (!strcmp(key, "log_level"))
		return set_level(&c->log_level, value);
	if (!strcmp(key, "metrics_port")) {
		why = set_number(&v, value, 1, 65535, false);
		if (!why)
			c->metrics_port = (uint16_t)v;
		return why;
	}
	if (!strcmp(key, "sched"))
		return cfs_sched_mode_parse(value, &c->sched) ? NULL : "not auto, ext or off";
	if (!strcmp(key, "checkpoint_bytes"))
		return set_number(&c->checkpoint_bytes, value, CHECKPOINT_MIN_BYTES,
				  CHECKPOINT_MAX_BYTES, true);
	if (!strcmp(key, "lease_ms")) {
		why = set_number(&v, value, LEASE_MIN_MS, LEASE_MAX_MS, false);
		if (!why)
			c->lease_ms = (uint32_t)v;
		return why;
	}
	return "unknown key";
}

int cfs_config_set(struct cfs_config *c, const char *key, const char *value, const char **ret_why)
{
	if (strcmp(key, "target")) {
		*ret_why = set(c, key, value);
		return *ret_why ? -EINVAL : 0;
	}
	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX && !c->targets_set; i++) {
		free(c->targets[i]);
		c->targets[i] = NULL;
		c->poll[i] = 0;
		c->n_targets = 0;
	}
	c->targets_set = true;
	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX; i++)
		if (!c->targets[i]) {
			*ret_why = add_target(c, i, value);
			return *ret_why ? -EINVAL : 0;
		}
	*ret_why = "too many targets";
	return -EINVAL;
}

/* ---- the file -------------------------------------------------------------------------------- */

#define KEYS_MAX 64
struct reading {
	struct cfs_config *c;
	char why[256];
	char seen[KEYS_MAX][64];	/* "section.key" */
	unsigned n_seen;
};

/* inih reports the line of the first entry for which this returns 0 */
static int on_entry(void *user, const char *section, const char *name, const char *value)
{
	struct reading *r = user;
	const char *why = NULL;
	char id[64];
	unsigned target;
	char end;

	if (r->why[0])
		return 1;	/* inih goes on after the first error */
	snprintf(id, sizeof(id), "%.30s.%.30s", section, name);
	for (unsigned i = 0; i < r->n_seen; i++)
		if (!strcmp(r->seen[i], id))
			why = "given twice";
	if (!why && r->n_seen < KEYS_MAX)
		strcpy(r->seen[r->n_seen++], id);
	if (why)
		;
	else if (!strcmp(section, "server"))
		why = set(r->c, name, value);
	else if (sscanf(section, "target.%u%c", &target, &end) != 1 ||
		 target >= CFS_NODE_TARGETS_MAX)
		why = section[0] ? "unknown section" : "before the first [section]";
	else if (!strcmp(name, "path"))
		why = add_target(r->c, target, value);
	else
		why = strcmp(name, "poll") ? "unknown key" : set_poll(&r->c->poll[target], value);
	if (!why)
		return 1;
	snprintf(r->why, sizeof(r->why), "[%.30s] %.30s = %.60s: %s", section, name, value, why);
	return 0;
}

int cfs_config_read(struct cfs_config *c, const char *path, char *errbuf, size_t errlen)
{
	struct reading r = { .c = c };
	int rc;

	errno = 0;
	rc = ini_parse(path, on_entry, &r);
	if (rc < 0) {
		rc = errno ? -errno : -EIO;
		snprintf(errbuf, errlen, "cannot read %s: %s", path, strerror(-rc));
		return rc;
	}
	if (rc > 0) {
		snprintf(errbuf, errlen, "%s:%d: %s", path, rc,
			 r.why[0] ? r.why : "neither [section] nor key = value");
		return -EINVAL;
	}
	return 0;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* the host part, without brackets */
static void host_of(const char *addr, char *host, size_t len)
{
	size_t n = (size_t)(strrchr(addr, ':') - addr);

	if (addr[0] == '[') {
		addr++;
		n -= 2;
	}
	n = cfs_min(n, len - 1);
	memcpy(host, addr, n);
	host[n] = 0;
}

static bool is_wildcard(const char *host)
{
	return !strcmp(host, "0.0.0.0") || !strcmp(host, "::") || !strcmp(host, "*");
}

/* the first address of this machine that others may reach, or loopback */
static void own_address(char *buf, size_t len)
{
	struct ifaddrs *list = NULL;

	snprintf(buf, len, "127.0.0.1");
	if (getifaddrs(&list))
		return;
	for (struct ifaddrs *i = list; i; i = i->ifa_next) {
		const struct sockaddr_in *sin =
			(const struct sockaddr_in *)(const void *)i->ifa_addr;

		if (!sin || sin->sin_family != AF_INET || !(i->ifa_flags & IFF_UP) ||
		    i->ifa_flags & IFF_LOOPBACK)
			continue;
		if (inet_ntop(AF_INET, &sin->sin_addr, buf, (socklen_t)len))
			break;
	}
	freeifaddrs(list);
}

int cfs_config_check(struct cfs_config *c, char *errbuf, size_t errlen)
{
	char host[64];

	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX; i++) {
		if (!c->poll[i] || (c->targets[i] && cfs_dev_is_nvme(c->targets[i])))
			continue;
		snprintf(errbuf, errlen, "[target.%u] poll = %s: %s%s", i, poll_name(c->poll[i]),
			 c->targets[i] ? c->targets[i] : "the section has no path",
			 c->targets[i] ? " is not an NVMe namespace (nvme:NAME or /dev/ngXnY), and others cannot be polled" : "");
		return -EINVAL;
	}

	if (!c->n_targets) {
		snprintf(errbuf, errlen,
			 "no target: give --target PATH, or path in a [target.0] section");
		return -EINVAL;
	}
	if (c->advertise) {
		host_of(c->advertise, host, sizeof(host));
		if (is_wildcard(host)) {
			snprintf(errbuf, errlen, "advertise = %s: nobody can connect to that",
				 c->advertise);
			return -EINVAL;
		}
		return 0;
	}
	host_of(c->listen, host, sizeof(host));
	if (!is_wildcard(host))
		return set_text(&c->advertise, c->listen) ? -ENOMEM : 0;
	own_address(host, sizeof(host));
	if (asprintf(&c->advertise, "%s%s", host, strrchr(c->listen, ':')) < 0) {
		c->advertise = NULL;
		snprintf(errbuf, errlen, "out of memory");
		return -ENOMEM;
	}
	return 0;
}
