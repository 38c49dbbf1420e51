/* SPDX-License-Identifier: MIT */
/*
 * Proves of what identify data become: the stable name comes from NGUID, EUI-64 or serial number and namespace,
 * in this order, and holds no byte that a configuration file could stumble over; transfer limits, atomic
 * units, granularities, delays, zones and health are read as the specifications say; formats and numbers that cannot be
 * driven are refused with a reason; and no page of random bytes does harm.
 */
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/base.h"
#include "base/rng.h"
#include "dev/nvme_ident.h"

static struct cfs_nvme_pages pages;
static struct cfs_nvme_limits lim;
static struct cfs_nvme_ns ns;

/* a drive of 1 TiB with blocks of 4096 in its second format */
static int setup(void **state)
{
	(void)state;
	memset(&pages, 0, sizeof(pages));
	memset(pages.ctrl.sn, ' ', sizeof(pages.ctrl.sn));
	memset(pages.ctrl.mn, ' ', sizeof(pages.ctrl.mn));
	memcpy(pages.ctrl.sn, "S5X NA0", 7);
	memcpy(pages.ctrl.mn, "Some Drive 1T", 13);
	pages.nsid = 3;
	pages.ctrl.mdts = 5;
	pages.ctrl.vwc = 7;
	pages.ctrl.oncs = htole16(NVME_CTRL_ONCS_DSM);
	pages.ctrl.crdt2 = htole16(4);
	pages.ns.nsze = htole64(1ull << 28);
	pages.ns.nuse = htole64(1ull << 27);
	pages.ns.nlbaf = 2;
	pages.ns.flbas = 1;
	pages.ns.lbaf[0].ds = 9;
	pages.ns.lbaf[1].ds = 12;
	pages.ns.lbaf[2].ds = 12;
	pages.ns.lbaf[2].ms = htole16(8);
	return 0;
}

static void decode(void)
{
	cfs_nvme_pages_decode(&pages, &ns, &lim);
}

static void test_names(void **state)
{
	(void)state;
	decode();
	assert_string_equal(ns.name, "nvme:serial.S5X_NA0.3");
	assert_string_equal(ns.serial, "S5X NA0");
	assert_string_equal(ns.model, "Some Drive 1T");
	memcpy(pages.ns.eui64, "\x00\x25\x38\x5b\x71\xb0\x0a\x01", 8);
	decode();
	assert_string_equal(ns.name, "nvme:eui.0025385b71b00a01");
	pages.ns.nguid[15] = 0xab;
	decode();
	assert_string_equal(ns.name, "nvme:nguid.000000000000000000000000000000ab");
}

static void test_limits(void **state)
{
	(void)state;
	decode();
	assert_true(ns.usable);
	assert_int_equal(ns.size_bytes, 1ull << 40);
	assert_int_equal(ns.used_bytes, 1ull << 39);
	assert_int_equal(lim.block_bytes, 4096);
	assert_int_equal(ns.formats[0], 512);
	assert_int_equal(ns.formats[1], 4096);
	assert_int_equal(ns.formats[2], 0);	/* with metadata: none that we take */
	assert_int_equal(lim.max_bytes, 128 << 10);
	assert_int_equal(lim.discard_bytes, 4096);
	assert_int_equal(lim.crdt_ms[1], 0);
	assert_int_equal(lim.crdt_ms[2], 400);
	assert_true(lim.volatile_cache);
	assert_int_equal(ns.atomic_unit, 4096);	/* the namespace says nothing: one block */
	pages.ctrl.awupf = htole16(255);	/* the controller's word does not count */
	decode();
	assert_int_equal(lim.atomic_bytes, 0);
	pages.ns.nsfeat = NVME_NS_FEAT_NATOMIC | NVME_NS_FEAT_IO_OPT;
	pages.ns.nawupf = htole16(15);
	pages.ns.nabspf = htole16(63);
	pages.ns.npwg = htole16(3);
	pages.ns.npdg = htole16(7);
	pages.cache_off = true;
	decode();
	assert_int_equal(lim.atomic_bytes, 65536);
	assert_int_equal(lim.atomic_boundary, 262144);
	assert_int_equal(lim.write_bytes, 16384);
	assert_int_equal(lim.discard_bytes, 32768);
	assert_false(lim.volatile_cache);
	pages.ns.nabo = htole16(1);
	pages.ctrl.oncs = 0;
	pages.ctrl.mdts = 0;
	decode();
	assert_int_equal(lim.atomic_bytes, 0);
	assert_int_equal(lim.discard_bytes, 0);
	assert_int_equal(lim.max_bytes, 0);
}

static void test_refused(void **state)
{
	(void)state;
	pages.ns.flbas = 2;
	decode();
	assert_false(ns.usable);
	assert_non_null(strstr(ns.why, "8 bytes of metadata"));
	setup(NULL);
	pages.ns.lbaf[1].ds = 13;
	decode();
	assert_false(ns.usable);
	setup(NULL);
	pages.ns.nsze = 0;
	decode();
	assert_false(ns.usable);
	setup(NULL);
	pages.csi = 1;		/* key-value */
	decode();
	assert_non_null(strstr(ns.why, "command set 1"));
}

static void test_zones(void **state)
{
	(void)state;
	pages.csi = 2;
	pages.zns_ns.lbafe[1].zsze = htole64(65536);
	pages.zns_ns.mar = htole32(13);
	pages.zns_ns.mor = htole32(UINT32_MAX);
	pages.zns_ctrl.zasl = 4;
	decode();
	assert_true(ns.usable && ns.zoned);
	assert_int_equal(ns.zone_bytes, 256 << 20);
	assert_int_equal(lim.n_zones, 4096);
	assert_int_equal(lim.max_active, 14);
	assert_int_equal(lim.max_open, 0);	/* no limit */
	assert_int_equal(lim.append_bytes, 65536);
	pages.zns_ctrl.zasl = 0;		/* as MDTS */
	decode();
	assert_int_equal(lim.append_bytes, 128 << 10);
	pages.zns_ns.lbafe[1].zsze = 0;
	decode();
	assert_false(ns.usable);
}

static void test_health(void **state)
{
	(void)state;
	decode();
	assert_false(ns.health.known);
	pages.has_smart = true;
	pages.smart.temperature[0] = 0x3e;	/* 318 K */
	pages.smart.temperature[1] = 1;
	pages.smart.percent_used = 104;
	pages.smart.data_units_written[0] = 2;
	pages.smart.critical_warning = 4;
	decode();
	assert_true(ns.health.known);
	assert_int_equal(ns.health.temperature_c, 45);
	assert_int_equal(ns.health.used_percent, 104);
	assert_int_equal(ns.health.written_bytes, 1024000);
	assert_int_equal(ns.health.critical_warning, 4);
}

static void test_any_bytes(void **state)
{
	struct cfs_rng rng;
	uint8_t *p = (uint8_t *)&pages;

	(void)state;
	cfs_rng_seed(&rng, 11);
	for (unsigned n = 0; n < 300; n++) {
		for (size_t i = 0; i < offsetof(struct cfs_nvme_pages, nsid); i++)
			p[i] = (uint8_t)cfs_rng_next(&rng);
		pages.nsid = (uint32_t)cfs_rng_next(&rng);
		pages.csi = (uint8_t)(2 * (n % 2));
		pages.has_smart = true;
		if (n % 3)	/* get past the first check */
			pages.ns.lbaf[(pages.ns.flbas & 0xf) | (pages.ns.flbas & 0x60) >> 1] = (struct nvme_lbaf){ .ds = 12 };
		decode();
		assert_true(strlen(ns.name) > 5 && strlen(ns.name) < sizeof(ns.name));
		for (const char *c = ns.name; *c; c++)
			assert_true(*c > ' ' && *c <= '~');
		assert_true(!ns.usable == !!ns.why[0]);
		if (ns.usable)
			assert_true(lim.blocks && lim.block_bytes >= 512 && lim.block_bytes <= 4096);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_names, setup),
		cmocka_unit_test_setup(test_limits, setup),
		cmocka_unit_test_setup(test_refused, setup),
		cmocka_unit_test_setup(test_zones, setup),
		cmocka_unit_test_setup(test_health, setup),
		cmocka_unit_test_setup(test_any_bytes, setup),
	};

	return cmocka_run_group_tests_name("nvme_ident", tests, NULL, NULL);
}
