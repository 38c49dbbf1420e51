# install.mk: `make install DESTDIR= PREFIX=`. mount(8) looks for its helpers in /sbin only, hence MOUNTDIR.
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
MOUNTDIR ?= /usr/sbin
MANDIR ?= $(PREFIX)/share/man
UNITDIR ?= $(PREFIX)/lib/systemd/system
SHAREDIR ?= $(PREFIX)/share

UNIT_FILES := $(wildcard systemd/*.service systemd/*.socket systemd/*.target systemd/*.timer systemd/*.mount)
put = $(if $(strip $(2)),install -d $(DESTDIR)$(1) && install -m $(3) $(2) $(DESTDIR)$(1)/)

install: all				## into DESTDIR, below PREFIX=/usr/local
	$(call put,$(SBINDIR),$(CLAUDEFSD),755)
	$(call put,$(BINDIR),$(CLI),755)
	$(if $(CLI),install -d $(DESTDIR)$(MOUNTDIR) && ln -sfn $(BINDIR)/claudefs $(DESTDIR)$(MOUNTDIR)/mount.claudefs)
	$(if $(CLI),install -d $(DESTDIR)$(MOUNTDIR) && ln -sfn $(BINDIR)/claudefs $(DESTDIR)$(MOUNTDIR)/umount.fuse.claudefs)
	$(foreach n,1 5 7 8,$(call put,$(MANDIR)/man$(n),$(filter %.$(n),$(MANPAGES)),644)$(newline))
	$(call put,$(SHAREDIR)/bash-completion/completions,$(wildcard tools/completion/*.bash),644)
	$(call put,$(SHAREDIR)/zsh/site-functions,$(wildcard tools/completion/_*),644)
	$(call put,$(SHAREDIR)/fish/vendor_completions.d,$(wildcard tools/completion/*.fish),644)
	$(call put,$(SHAREDIR)/doc/claudefs,LICENSE $(wildcard LICENSES/*.txt README.md),644)
	$(call put,$(SHAREDIR)/doc/claudefs/examples,$(wildcard docs/*.example),644)
	$(call put,$(SHAREDIR)/doc/claudefs,$(wildcard docs/*.md),644)
	$(if $(UNIT_FILES),install -d $(DESTDIR)$(UNITDIR))
	$(foreach u,$(UNIT_FILES),sed 's|@BINDIR@|$(BINDIR)|g; s|@SBINDIR@|$(SBINDIR)|g' $(u) >$(DESTDIR)$(UNITDIR)/$(notdir $(u))$(newline))

define newline


endef
