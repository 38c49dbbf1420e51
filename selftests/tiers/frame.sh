#!/bin/bash
# The frame of the tiers: options are checked, every tier has a state that status, doctor and the log agree on, =on of one that
# does not work here fails the mount with its reason and leaves nothing, and the switch says what it cannot do.
# timeout: 120
# parallel: yes
. "$T_TOP/selftests/lib/tap.sh"
. "$T_TOP/selftests/lib/cluster.sh"

json() { python3 -c "import json, sys; d = json.load(sys.stdin); print($1)"; }
state() { claudefs tier --json "$T_DIR/a" | json "d['$1']['$2']"; }
doctor() { claudefs doctor --json | json "[f for f in d['features'] if f['feature'] == 'tier $1'][0]['$2']"; }

cluster_start
for tier in uring passthrough bpf; do
	out=$(claudefs mount -f -o "$tier=maybe" "$CLUSTER_ADDR" "$T_DIR" 2>&1)
	like "$out" "'$tier=maybe': must be auto, on or off" "$tier=maybe is refused"
done
cluster_mount a uring=off,bpf=off,passthrough=off
is "$(state plain state)" on "the plain tier is on"
for tier in uring passthrough bpf; do
	is "$(state $tier state) $(state $tier option)" "off by option off" "$tier=off is shown"
	out=$(claudefs tier "$T_DIR/a" $tier on 2>&1)
	is "$? $out" "1 claudefs tier: tier $tier is off by option" "what is off by option cannot be switched on"
done
is "$(claudefs status --json "$T_DIR/a" | json "d['tiers']")" "$(claudefs tier --json "$T_DIR/a" | json d)" "status shows the same"
out=$(claudefs tier "$T_DIR/a" plain off 2>&1)
is "$? $out" "1 claudefs tier: tier plain cannot be switched" "the plain tier has no switch"
out=$(claudefs tier "$T_DIR/a" warp on 2>&1)
is "$? $out" "1 claudefs tier: no tier is called 'warp'" "an unknown tier"
fails "an unknown word" claudefs tier "$T_DIR/a" uring maybe
cluster_umount a

for tier in uring passthrough bpf; do
	mkdir -p "$T_DIR/on-$tier" "$T_DIR/cache-on"
	used=$(doctor $tier used) why=$(doctor $tier kernel)
	if [ "$used" = True ]; then
		skip "works on this machine: $why" "$tier=on fails where it does not work"
		continue
	fi
	out=$(timeout 30 "$T_BIN/claudefs" mount -o "$tier=on,cachedir=$T_DIR/cache-on" "$CLUSTER_ADDR" "$T_DIR/on-$tier" 2>&1)
	is "$? $out" "32 claudefs: option '$tier=on': $why" "$tier=on fails with the reason that doctor gives"
	if cluster_mounted "$T_DIR/on-$tier"; then not_ok "and nothing is mounted"; else ok "and nothing is mounted"; fi
done
cluster_end
done_testing
