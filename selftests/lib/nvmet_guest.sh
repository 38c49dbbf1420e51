# nvmet_guest.sh: NVMe drives over loop, TCP and RDMA inside the test machine, made by the kernel's own NVMe target. Source it
# after vm_guest.sh. Each drive NAME is one subsystem with one namespace on a loop device over a file, so that its block
# size and its size can be changed; what is done to namespace, connection and controller is what happens to drives.
# shellcheck shell=bash
#
#   nvmet_start                              modules, configfs, a port for each transport; RDMA is rxe on a dummy link
#   nvmet_add NAME TRANSPORT NUMBER [DEVICE]  a subsystem NAME, its namespace with the GUID ...NUMBER, on loop device NUMBER
#   nvmet_backing NAME NUMBER FILE BLOCK     (re)makes the loop device: while the namespace is disabled
#   nvmet_enable NAME 0|1                    the namespace goes away, comes back
#   nvmet_listen NAME TRANSPORT 0|1          the target drops its connections and refuses new ones, takes them again
#   nvmet_connect NAME TRANSPORT             a controller of this machine; nvmet_ctrl NAME prints its directory in sysfs
#   nvmet_disconnect NAME                    removes it
NVMET=/sys/kernel/config/nvmet
declare -A NVMET_PORT=([loop]=1 [tcp]=2 [rdma]=3) NVMET_ADDR=([tcp]=127.0.0.1 [rdma]=10.77.0.1)

nvmet_start() {
	local t port
	guest_modules nvme loop nvmet nvme-loop nvmet-tcp nvme-tcp dummy rdma_rxe nvmet-rdma nvme-rdma || return 1
	mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config || return 1
	ip link add nvmet0 type dummy && ip addr add 10.77.0.1/24 dev nvmet0 && ip link set nvmet0 up &&
		rdma link add rxe0 type rxe netdev nvmet0 || return 1
	for t in loop tcp rdma; do
		port=$NVMET/ports/${NVMET_PORT[$t]}
		mkdir "$port" && echo "$t" >"$port/addr_trtype" || return 1
		[ "$t" != loop ] || continue
		echo ipv4 >"$port/addr_adrfam" && echo "${NVMET_ADDR[$t]}" >"$port/addr_traddr" && echo 4420 >"$port/addr_trsvcid" || return 1
	done
}
nvmet_backing() { # NAME NUMBER FILE BLOCK
	losetup -d "/dev/loop$2" 2>/dev/null
	losetup -b "$4" --direct-io=on "/dev/loop$2" "$3"
}
nvmet_add() { # NAME TRANSPORT NUMBER [DEVICE]
	local s=$NVMET/subsystems/$1
	mkdir "$s" "$s/namespaces/1" && echo 1 >"$s/attr_allow_any_host" && echo "nvmet-$1" >"$s/attr_serial" &&
		printf '00000000-0000-0000-0000-%012d' "$3" >"$s/namespaces/1/device_nguid" &&
		printf '%s' "${4-/dev/loop$3}" >"$s/namespaces/1/device_path" && nvmet_enable "$1" 1 && nvmet_listen "$1" "$2" 1
}
nvmet_enable() { echo "$2" >"$NVMET/subsystems/$1/namespaces/1/enable"; }
nvmet_listen() { # NAME TRANSPORT 0|1
	local link=$NVMET/ports/${NVMET_PORT[$2]}/subsystems/$1
	if [ "$3" = 1 ]; then ln -s "$NVMET/subsystems/$1" "$link"; else rm "$link"; fi
}
nvmet_connect() { # NAME TRANSPORT
	local options=transport=$2,nqn=$1
	[ "$2" = loop ] || options+=,traddr=${NVMET_ADDR[$2]},trsvcid=4420,reconnect_delay=1,ctrl_loss_tmo=120
	echo "$options" >/dev/nvme-fabrics
}
nvmet_ctrl() { # NAME
	local nqn
	for nqn in /sys/class/nvme/*/subsysnqn; do
		[ "$(cat "$nqn" 2>/dev/null)" != "$1" ] || { echo "${nqn%/*}"; return 0; }
	done
	return 1
}
nvmet_disconnect() { echo 1 >"$(nvmet_ctrl "$1")/delete_controller"; }
