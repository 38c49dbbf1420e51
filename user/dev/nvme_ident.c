/* SPDX-License-Identifier: MIT */
/*
 * nvme_ident.c - what an NVMe controller and namespace say of themselves; see nvme_ident.h. No state.
 *
 * All of it comes from the drive and is checked: a namespace whose numbers make no sense, or whose format
 * we do not drive, is listed as unusable with the reason.
 */
#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "dev/nvme_ident.h"

#define PAGE_BYTES	4096u	/* MDTS counts pages of the controller's least size, which is never smaller */
#define CSI_NVM		0
#define CSI_ZNS		2
#define SEGMENTS	127u	/* what the kernel's driver takes at least */

/* libnvme answers with a status, or -1 and errno */
static int nvme_rc(int rc)
{
	return rc < 0 ? -errno : rc > 0 ? -EIO : 0;
}

static uint8_t find_csi(int fd, uint32_t nsid)
{
	uint8_t csi = CSI_NVM, *buf = aligned_alloc(PAGE_BYTES, PAGE_BYTES);

	if (buf && !nvme_identify_ns_descs(fd, nsid, (struct nvme_ns_id_desc *)buf)) {
		for (unsigned at = 0; at + 4 < PAGE_BYTES && buf[at + 1]; at += 4u + buf[at + 1]) {
			if (buf[at] == NVME_NIDT_CSI)
				csi = buf[at + 4];
		}
	}
	free(buf);
	return csi;
}

int cfs_nvme_pages_read(int fd, struct cfs_nvme_pages *p)
{
	uint32_t on = 0;
	int rc;

	memset(p, 0, sizeof(*p));
	if (nvme_get_nsid(fd, &p->nsid))
		return -ENOTTY;
	rc = nvme_rc(nvme_identify_ctrl(fd, &p->ctrl));
	if (!rc)
		rc = nvme_rc(nvme_identify_ns(fd, p->nsid, &p->ns));
	if (rc)
		return rc;
	p->csi = find_csi(fd, p->nsid);
	if (p->csi == CSI_ZNS) {
		rc = nvme_rc(nvme_zns_identify_ns(fd, p->nsid, &p->zns_ns));
		/* a controller without limits of its own may not have this page */
		if (!rc && nvme_zns_identify_ctrl(fd, &p->zns_ctrl))
			memset(&p->zns_ctrl, 0, sizeof(p->zns_ctrl));
	}
	p->has_smart = !nvme_get_log_smart(fd, NVME_NSID_ALL, false, &p->smart);
	if (p->ctrl.vwc & NVME_CTRL_VWC_PRESENT &&
	    !nvme_get_features_volatile_wc(fd, NVME_GET_FEATURES_SEL_CURRENT, &on))
		p->cache_off = !(on & 1);
	return rc;
}

/* ---- decoding ---------------------------------------------------------------------------------- */

/* fixed fields of ASCII, filled up with blanks; what is not printable becomes '_', so do blanks inside if asked */
static void copy_text(char *out, size_t out_len, const char *in, size_t in_len, bool word)
{
	size_t n = 0;

	while (in_len && (in[in_len - 1] == ' ' || !in[in_len - 1]))
		in_len--;
	while (in_len && *in == ' ') {
		in++;
		in_len--;
	}
	for (; n < in_len && n + 1 < out_len; n++)
		out[n] = in[n] < (word ? '!' : ' ') || in[n] > '~' ? '_' : in[n];
	out[n] = '\0';
}

static bool all_zero(const uint8_t *p, size_t n)
{
	while (n && !p[n - 1])
		n--;
	return !n;
}

static void hex(char *out, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sprintf(out + 2 * i, "%02x", p[i]);
}

static void make_name(const struct cfs_nvme_pages *p, struct cfs_nvme_ns *ns)
{
	char text[33], serial[24];

	if (!all_zero(p->ns.nguid, sizeof(p->ns.nguid))) {
		hex(text, p->ns.nguid, sizeof(p->ns.nguid));
		snprintf(ns->name, sizeof(ns->name), "nvme:nguid.%s", text);
	} else if (!all_zero(p->ns.eui64, sizeof(p->ns.eui64))) {
		hex(text, p->ns.eui64, sizeof(p->ns.eui64));
		snprintf(ns->name, sizeof(ns->name), "nvme:eui.%s", text);
	} else {
		copy_text(serial, sizeof(serial), p->ctrl.sn, sizeof(p->ctrl.sn), true);
		snprintf(ns->name, sizeof(ns->name), "nvme:serial.%s.%u", serial, p->nsid);
	}
}

/* counters of 128 bits; what does not fit into 64 is not believed */
static uint64_t low64(const uint8_t v[16])
{
	uint64_t low;

	memcpy(&low, v, sizeof(low));
	return le64toh(low);
}

static void decode_health(const struct cfs_nvme_pages *p, struct cfs_nvme_health *h)
{
	const struct nvme_smart_log *s = &p->smart;

	if (!p->has_smart)
		return;
	*h = (struct cfs_nvme_health){
		.known = true,
		.critical_warning = s->critical_warning,
		.spare_percent = s->avail_spare,
		.used_percent = s->percent_used,
		/* kelvins; 0 is CFS_NVME_NO_TEMPERATURE */
		.temperature_c = (s->temperature[0] | s->temperature[1] << 8) - 273,
		.media_errors = low64(s->media_errors),
		.power_cycles = low64(s->power_cycles),
		.unsafe_shutdowns = low64(s->unsafe_shutdowns),
		.power_on_hours = low64(s->power_on_hours),
		.written_bytes = low64(s->data_units_written) * 512000,	/* thousands of 512 bytes */
	};
}

static void __attribute__((format(printf, 2, 3))) unusable(struct cfs_nvme_ns *ns, const char *fmt, ...)
{
	va_list ap;

	if (!ns->usable)
		return;		/* the first reason does */
	ns->usable = false;
	va_start(ap, fmt);
	vsnprintf(ns->why, sizeof(ns->why), fmt, ap);
	va_end(ap);
}

static unsigned lbaf_index(const struct nvme_id_ns *ns)
{
	return (ns->flbas & 0xfu) | (ns->flbas & 0x60u) >> 1;
}

/* formats, and the one in use: its block size, or 0 */
static uint32_t decode_format(const struct cfs_nvme_pages *p, struct cfs_nvme_ns *ns)
{
	const struct nvme_id_ns *id = &p->ns;
	unsigned at = lbaf_index(id), n = 0;
	const struct nvme_lbaf *f = &id->lbaf[at];

	for (unsigned i = 0; i <= id->nlbaf && i < 64; i++) {
		uint32_t size = id->lbaf[i].ds >= 9 && id->lbaf[i].ds < 32 ? 1u << id->lbaf[i].ds : 0;
		unsigned k = 0;

		while (k < n && ns->formats[k] != size)
			k++;
		if (size && !id->lbaf[i].ms && k == n && n + 1 < CFS_ARRAY_SIZE(ns->formats))
			ns->formats[n++] = size;
	}
	if (f->ms)
		unusable(ns, "formatted with %u bytes of metadata per block", le16toh(f->ms));
	if (f->ds < 9 || f->ds > 12) {
		unusable(ns, "blocks of 2^%u bytes: only 512 to 4096 are supported", f->ds);
		return f->ds < 32 ? 1u << f->ds : 0;
	}
	return 1u << f->ds;
}

static void decode_zones(const struct cfs_nvme_pages *p, struct cfs_nvme_ns *ns, struct cfs_nvme_limits *lim)
{
	uint64_t zsze = le64toh(p->zns_ns.lbafe[lbaf_index(&p->ns)].zsze), blocks = lim->blocks;
	uint32_t mar = le32toh(p->zns_ns.mar), mor = le32toh(p->zns_ns.mor);

	if (!zsze || blocks / zsze == 0 || blocks / zsze > UINT32_MAX) {
		unusable(ns, "zones of %llu blocks make no sense", (unsigned long long)zsze);
		return;
	}
	lim->zone_blocks = zsze;
	lim->n_zones = (uint32_t)(blocks / zsze);
	/* zero's based; all ones: no limit */
	lim->max_active = mar + 1;
	lim->max_open = mor + 1;
	lim->append_bytes = p->zns_ctrl.zasl && p->zns_ctrl.zasl < 20 ? PAGE_BYTES << p->zns_ctrl.zasl :
			    lim->max_bytes ? lim->max_bytes : CFS_NVME_PART_MAX;
	lim->discard_bytes = 0;		/* a zone's reset is what gives space back */
	ns->zone_bytes = zsze * lim->block_bytes;
	ns->n_zones = lim->n_zones;
	ns->max_active = lim->max_active;
	ns->max_open = lim->max_open;
}

/*
 * Power-fail atomicity of the namespace. The controller's own AWUPF speaks of blocks of whatever format
 * any namespace may have, and drives have got it wrong: only what the namespace says counts.
 */
static void decode_atomic(const struct nvme_id_ns *id, struct cfs_nvme_limits *lim)
{
	uint32_t boundary = le16toh(id->nabspf);

	if (!(id->nsfeat & NVME_NS_FEAT_NATOMIC) || le16toh(id->nabo))
		return;		/* boundaries that do not begin at block 0 are not worth the trouble */
	lim->atomic_bytes = (le16toh(id->nawupf) + 1u) * lim->block_bytes;
	if (boundary)
		lim->atomic_boundary = (boundary + 1u) * lim->block_bytes;
}

void cfs_nvme_pages_decode(const struct cfs_nvme_pages *p, struct cfs_nvme_ns *ns, struct cfs_nvme_limits *ret)
{
	struct cfs_nvme_limits own, *lim = ret ? ret : &own;
	const struct nvme_id_ns *id = &p->ns;

	memset(ns, 0, sizeof(*ns));
	memset(lim, 0, sizeof(*lim));
	ns->usable = true;
	ns->nsid = lim->nsid = p->nsid;
	make_name(p, ns);
	copy_text(ns->model, sizeof(ns->model), p->ctrl.mn, sizeof(p->ctrl.mn), false);
	copy_text(ns->serial, sizeof(ns->serial), p->ctrl.sn, sizeof(p->ctrl.sn), false);
	copy_text(ns->firmware, sizeof(ns->firmware), p->ctrl.fr, sizeof(p->ctrl.fr), false);
	snprintf(lim->model, sizeof(lim->model), "%s", ns->model);
	ns->block_bytes = lim->block_bytes = decode_format(p, ns);
	lim->blocks = le64toh(id->nsze);
	if (!lim->blocks || lim->blocks > UINT64_MAX / 2 / 4096) {
		unusable(ns, "a size of %llu blocks makes no sense", (unsigned long long)lim->blocks);
		lim->blocks = 0;
	}
	if (p->csi != CSI_NVM && p->csi != CSI_ZNS)
		unusable(ns, "command set %u is not supported", p->csi);
	lim->max_segments = SEGMENTS;
	if (p->ctrl.mdts && p->ctrl.mdts < 20)
		lim->max_bytes = PAGE_BYTES << p->ctrl.mdts;
	if (le16toh(p->ctrl.oncs) & NVME_CTRL_ONCS_DSM)
		lim->discard_bytes = lim->block_bytes;
	if (id->nsfeat & NVME_NS_FEAT_IO_OPT) {
		lim->write_bytes = (le16toh(id->npwg) + 1u) * lim->block_bytes;
		if (lim->discard_bytes)
			lim->discard_bytes *= le16toh(id->npdg) + 1u;
	}
	lim->crdt_ms[1] = le16toh(p->ctrl.crdt1) * 100u;
	lim->crdt_ms[2] = le16toh(p->ctrl.crdt2) * 100u;
	lim->crdt_ms[3] = le16toh(p->ctrl.crdt3) * 100u;
	lim->volatile_cache = p->ctrl.vwc & NVME_CTRL_VWC_PRESENT && !p->cache_off;
	lim->readonly = id->nsattr & 1;		/* write protected */
	decode_atomic(id, lim);
	if (p->csi == CSI_ZNS)
		decode_zones(p, ns, lim);
	ns->zoned = p->csi == CSI_ZNS;
	ns->size_bytes = lim->blocks * lim->block_bytes;
	ns->used_bytes = cfs_min(le64toh(id->nuse), lim->blocks) * lim->block_bytes;
	ns->max_io = lim->max_bytes;
	ns->atomic_unit = cfs_max(lim->atomic_bytes, lim->block_bytes);
	ns->volatile_cache = lim->volatile_cache;
	decode_health(p, &ns->health);
}
