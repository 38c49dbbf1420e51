# bash completion for claudefs(1)                                  -*- shell-script -*-
# SPDX-License-Identifier: MIT
_claudefs()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]-}
	local mount_opts='ro rw allow_other cachedir= cachesize= dirtysize= cache_entries= hard softerr timeo= cache=strict cache=none through nothrough uring= passthrough= pass_min= pass_max= bpf= bpf_mem= metrics= persist persist=auto persist_deaths='

	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W 'format device mount umount status tier upgrade top trace doctor fsck --help --version' -- "$cur")
		return
	fi
	case $prev in
	-o) mapfile -t COMPREPLY < <(compgen -W "$mount_opts" -- "$cur"); return ;;
	--config) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	--size | --cluster | --target-id | --seconds) return ;;
	device) mapfile -t COMPREPLY < <(compgen -W 'ls bench --help' -- "$cur"); return ;;
	esac
	case $verb:$cur in
	format:-*) mapfile -t COMPREPLY < <(compgen -W '--size --force --yes --cluster --target-id --json --help' -- "$cur") ;;
	device:-*)
		if [ "${COMP_WORDS[2]-}" = bench ]; then
			mapfile -t COMPREPLY < <(compgen -W '--destructive --force --seconds --json --help' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -W '--json --help' -- "$cur")
		fi ;;
	umount:-*) mapfile -t COMPREPLY < <(compgen -W '-f -l --help' -- "$cur") ;;
	mount:-*) mapfile -t COMPREPLY < <(compgen -W '-o -f --help' -- "$cur") ;;
	status:-* | doctor:-* | tier:-*) mapfile -t COMPREPLY < <(compgen -W '--json --help' -- "$cur") ;;
	top:-*) mapfile -t COMPREPLY < <(compgen -W '--once --interval --json --help' -- "$cur") ;;
	trace:-*) mapfile -t COMPREPLY < <(compgen -W '--count --json --help' -- "$cur") ;;
	fsck:-*) mapfile -t COMPREPLY < <(compgen -W '--config --repair --json --help' -- "$cur") ;;
	status:* | mount:* | umount:* | tier:* | upgrade:*) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
	top:*) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
	trace:*) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	format:* | device:*) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	esac
}
complete -F _claudefs claudefs
