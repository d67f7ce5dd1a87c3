# Reads simplevpn/Makefile without an SDK, for `package`: defines what that Makefile uses of
# OpenWrt's, so that what a package is made of is written down in one place.
#
# `package` runs it in the directory simplevpn, with
#   TOPDIR, INCLUDE_DIR   a directory with empty files for what that Makefile includes
#   PKG_INSTALL_DIR       a directory with bin/simplevpn
#   PKGARCH               OpenWrt's name of the architecture
#   DATA, CONTROL         empty directories, for the package's files and for what opkg reads
#   EPOCH                 the time of everything in the package, in seconds since 1970

INSTALL_DIR := install -d -m0755
INSTALL_BIN := install -m0755
INSTALL_DATA := install -m0644

all: keep control

# $(1): the package
define BuildPackage
  $(eval $(Package/$(1)))
  PACKAGE := $(1)
endef

include Makefile

VERSION := $(PKG_VERSION)-r$(PKG_RELEASE)
comma := ,
empty :=
space := $(empty) $(empty)
# `+kmod-tun @IPV6` to `kmod-tun`
packages := $(patsubst +%,%,$(filter +%,$(DEPENDS)))

define fields
Package: $(PACKAGE)
Version: $(VERSION)
Depends: $(subst $(space),$(comma)$(space),$(packages))
Source: feeds/simplevpn/simplevpn
SourceName: $(PACKAGE)
License: $(PKG_LICENSE)
LicenseFiles: $(PKG_LICENSE_FILES)
Section: $(SECTION)
SourceDateEpoch: $(EPOCH)
URL: $(URL)
Maintainer: $(PKG_MAINTAINER)
Architecture: $(PKGARCH)
Installed-Size: 0
Description:$(Package/$(PACKAGE)/description)
endef

data:
	$(call Package/$(PACKAGE)/install,$(DATA))
	$(INSTALL_DIR) $(DATA)/lib/upgrade/keep.d

# What is to be kept by sysupgrade and is no file of the package.
keep: data
	$(file >$(DATA)/lib/upgrade/keep.d/$(PACKAGE),$(Package/$(PACKAGE)/conffiles))

control:
	$(file >$(CONTROL)/control,$(fields))
	$(file >$(CONTROL)/postinst-pkg,$(Package/$(PACKAGE)/postinst))
	$(file >$(CONTROL)/prerm-pkg,$(Package/$(PACKAGE)/prerm))

.PHONY: all data keep control
