#!/bin/bash
# git: a repository of 3,000 objects and more, cloned into a mount, checked, branched, committed to, collected, cloned
# from mount to mount.
# timeout: 240
# parallel: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
command -v git >/dev/null || skip_all "no git"

cluster_start
cluster_mount a
cluster_mount b
export HOME=$T_DIR GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.org GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.org
export GIT_CONFIG_NOSYSTEM=1
git config --global init.defaultBranch main
git config --global advice.detachedHead false
git config --global gc.auto 0

src=$T_DIR/src
mkdir "$src"
for d in {1..30}; do # written here, not in the mount
	mkdir "$src/dir$d"
	for f in {1..50}; do printf '%s\n' "file $f of $d" "$RANDOM $RANDOM $RANDOM" "${RANDOM}line" >"$src/dir$d/file$f.txt"; done
done
(cd "$src" && git init -q && git add . && git commit -qm first && git checkout -qb other &&
	for f in dir*/file*.txt; do echo "changed in $f" >>"$f"; done && ln -s dir1/file1.txt link && chmod +x dir2/file2.txt &&
	git add . && git commit -qm second && git checkout -q main) || exit 1
objects=$(git -C "$src" count-objects | cut -d' ' -f1)
[ "$objects" -ge 3000 ] && ok "$objects objects to clone" || not_ok "3000 objects to clone" "$objects"

cd "$T_DIR/a" || exit 1
try "clone into the mount" git clone -q --no-local "$src" repo
cd repo || exit 1
try "fsck" git fsck --full --strict
is "$(git status --porcelain)" "" "status is clean"
try "checkout of the other branch" git checkout -q other
is "$(git status --porcelain)" "" "status is clean on the other branch"
is "$(git diff origin/main --stat | tail -n 1 | grep -o '^ *[0-9]* files')" " 1501 files" "the branches differ as they must"
is "$(readlink link) $(stat -c %A dir2/file2.txt | cut -c4)" "dir1/file1.txt x" "symlinks and modes"
for i in {1..20}; do
	echo "$i" >>"dir1/file$i.txt"
	git commit -qam "commit $i" || not_ok "commit $i"
done
is "$(git rev-list --count HEAD)" 22 "20 commits more"
try "stash, reset, merge" sh -c "echo x >>dir3/file3.txt && git stash -q && git checkout -q main && git merge -q other && git stash drop -q"
try "gc" git gc -q --prune=now
try "fsck after gc" git fsck --full --strict
try "repack of everything" git repack -adfq
cd "$T_DIR/b" || exit 1
try "clone from mount to mount" git clone -q --no-local "$T_DIR/b/repo" copy
try "fsck of the clone, through the other mount" git -C "$T_DIR/a/copy" fsck --full --strict
is "$(git -C copy rev-parse HEAD)" "$(git -C "$T_DIR/a/repo" rev-parse HEAD)" "the same head"
try "clone with hard links" git clone -q --local repo linked
try "fetch through the other mount" sh -c "cd '$T_DIR/a/linked' && echo y >new && git add new && git commit -qm new && cd '$T_DIR/b/copy' && git pull -q --no-edit ../linked main"
try "removing it all" rm -rf repo copy linked
cd "$T_DIR" || exit 1
cluster_end
done_testing
