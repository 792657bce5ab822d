"""The property strings of Proxmox VE (options of disks, network cards, retention and others): `key=value,...`.

Notation as in reconciler/lab/proxmox/pve/api.py; besides: `bare` = the key may be left out before its value,
`required`, `alias=KEY` = another name of that key, `key=KEY` = the name itself is that key's value (`virtio=MAC`).
"""

from __future__ import annotations

from typing import Final

PROPERTY_STRINGS: Final = r"""
drive
    aio s {native|threads|io_uring}
    backup b
    bps i
    bps_max_length i range=1..
    bps_rd i
    bps_rd_length alias=bps_rd_max_length
    bps_rd_max_length i range=1..
    bps_wr i
    bps_wr_length alias=bps_wr_max_length
    bps_wr_max_length i range=1..
    cache s {none|writethrough|writeback|unsafe|directsync}
    detect_zeroes b
    discard s {ignore|on}
    file s @pve-volume-id-or-qm-path bare required
    format s {raw|qcow|qed|qcow2|vmdk|cloop}
    iops i
    iops_max i
    iops_max_length i range=1..
    iops_rd i
    iops_rd_length alias=iops_rd_max_length
    iops_rd_max i
    iops_rd_max_length i range=1..
    iops_wr i
    iops_wr_length alias=iops_wr_max_length
    iops_wr_max i
    iops_wr_max_length i range=1..
    mbps n
    mbps_max n
    mbps_rd n
    mbps_rd_max n
    mbps_wr n
    mbps_wr_max n
    media s {cdrom|disk} =disk
    replicate b =1
    rerror s {ignore|report|stop}
    serial s @urlencoded len=..60
    shared b =0
    size s @disk-size
    snapshot b
    volume alias=file
    werror s {enospc|ignore|report|stop}
backup-fleecing
    enabled b =0 bare
    storage s @pve-storage-id
backup-performance
    max-workers i range=1..256 =16
    pbs-entries-max i range=1.. =1048576
prune-backups
    keep-all b
    keep-daily i range=0..
    keep-hourly i range=0..
    keep-last i range=0..
    keep-monthly i range=0..
    keep-weekly i range=0..
    keep-yearly i range=0..
pve-qemu-sev-fmt
    allow-smt b =1
    kernel-hashes b =0
    no-debug b =0
    no-key-sharing b =0
    type s len=..3 {std|es|snp} bare required
pve-qemu-tdx-fmt
    attestation b =1 required
    type s {tdx} bare required
    vsock-cid i range=2.. =2
    vsock-port i range=0.. =4050
pve-qm-boot
    legacy s =cdn bare ~ [acdn]{1,4}
    order s @pve-qm-bootdev-list
pve-qm-cicustom
    meta s @pve-volume-id
    network s @pve-volume-id
    user s @pve-volume-id
    vendor s @pve-volume-id
pve-qm-hostpci
    device-id s ~ (?:^0x[0-9a-fA-F]{4}$)
    driver s {vfio|keep} =vfio
    host s bare ~ (?:(?:(?:[a-f0-9]{4,}:)?[a-f0-9]{2}:[a-f0-9]{2}(?:\.[a-f0-9])?)(;(?:(?:[a-f0-9]{4,}:)
            ?[a-f0-9]{2}:[a-f0-9]{2}(?:\.[a-f0-9])?))*)
    legacy-igd b =0
    mapping s @pve-configid
    mdev s ~ [^/\.:]+
    pcie b =0
    rombar b =1
    romfile s ~ [^,;]+
    sub-device-id s ~ (?:^0x[0-9a-fA-F]{4}$)
    sub-vendor-id s ~ (?:^0x[0-9a-fA-F]{4}$)
    vendor-id s ~ (?:^0x[0-9a-fA-F]{4}$)
    x-vga b =0
pve-qm-ide +drive
    model s @urlencoded len=..120
    ssd b
    wwn s ~ (?:^(0x)[0-9a-fA-F]{16})
pve-qm-ipconfig
    gw s @ipv4 requires=ip
    gw6 s @ipv6 requires=ip6
    ip s @pve-ipv4-config =dhcp
    ip6 s @pve-ipv6-config =dhcp
pve-qm-rng
    max_bytes i =1024
    period i =1000
    source s {/dev/urandom|/dev/random|/dev/hwrng} bare required
pve-qm-smbios1
    base64 b
    family s ~ [A-Za-z0-9+\/]+={0,2}
    manufacturer s ~ [A-Za-z0-9+\/]+={0,2}
    product s ~ [A-Za-z0-9+\/]+={0,2}
    serial s ~ [A-Za-z0-9+\/]+={0,2}
    sku s ~ [A-Za-z0-9+\/]+={0,2}
    uuid s ~ [a-fA-F0-9]{8}(?:-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}
    version s ~ [A-Za-z0-9+\/]+={0,2}
pve-qm-watchdog
    action s {reset|shutdown|poweroff|pause|debug|none}
    model s {i6300esb|ib700} =i6300esb bare
pve-tfa-config
    digits i range=6..8 =6
    id s
    key s
    step i range=10.. =30
    type s {yubico|oath} required
    url s
pve-vm-cpu-conf
    cputype s =kvm64 bare
    flags s ~ (?:(?:([+-])([a-zA-Z0-9\-_\.]+))(;(?:([+-])([a-zA-Z0-9\-_\.]+)))*)
    guest-phys-bits i range=32..64
    hidden b =0
    hv-vendor-id s ~ (?:[a-zA-Z0-9]{1,12})
    level i range=0..4294967295
    phys-bits s @pve-phys-bits
    reported-model s {486|a64fx|athlon|Broadwell|Broadwell-IBRS|Broadwell-noTSX|Broadwell-noTSX-IBRS|
            Cascadelake-Server|Cascadelake-Server-noTSX|Cascadelake-Server-v2|Cascadelake-Server-v4|
            Cascadelake-Server-v5|ClearwaterForest|Conroe|Cooperlake|Cooperlake-v2|core2duo|coreduo|cortex-a35|
            cortex-a53|cortex-a55|cortex-a57|cortex-a710|cortex-a72|cortex-a76|EPYC|EPYC-Genoa|EPYC-Genoa-v2|
            EPYC-IBPB|EPYC-Milan|EPYC-Milan-v2|EPYC-Milan-v3|EPYC-Rome|EPYC-Rome-v2|EPYC-Rome-v3|EPYC-Rome-v4|
            EPYC-Rome-v5|EPYC-Turin|EPYC-v3|EPYC-v4|EPYC-v5|GraniteRapids|GraniteRapids-v2|GraniteRapids-v3|
            Haswell|Haswell-IBRS|Haswell-noTSX|Haswell-noTSX-IBRS|host|Icelake-Client|Icelake-Client-noTSX|
            Icelake-Server|Icelake-Server-noTSX|Icelake-Server-v3|Icelake-Server-v4|Icelake-Server-v5|
            Icelake-Server-v6|Icelake-Server-v7|IvyBridge|IvyBridge-IBRS|KnightsMill|kvm32|kvm64|max|Nehalem|
            Nehalem-IBRS|neoverse-n1|neoverse-n2|neoverse-v1|Opteron_G1|Opteron_G2|Opteron_G3|Opteron_G4|
            Opteron_G5|Penryn|pentium|pentium2|pentium3|phenom|qemu32|qemu64|SandyBridge|SandyBridge-IBRS|
            SapphireRapids|SapphireRapids-v2|SapphireRapids-v3|SapphireRapids-v4|SierraForest|SierraForest-v2|
            SierraForest-v3|Skylake-Client|Skylake-Client-IBRS|Skylake-Client-noTSX-IBRS|Skylake-Client-v4|
            Skylake-Server|Skylake-Server-IBRS|Skylake-Server-noTSX-IBRS|Skylake-Server-v4|Skylake-Server-v5|
            Westmere|Westmere-IBRS} =kvm64
realm-sync-options
    enable-new b =1
    full b
    purge b
    remove-vanished s =none ~ (?:(?:(?:(?:acl|properties|entry);)*(?:acl|properties|entry))|none)
    scope s {users|groups|both}
inline-agent
    enabled b =0 bare required
    freeze-fs b =1
    freeze-fs-on-backup alias=freeze-fs
    fstrim_cloned_disks b =0
    guest-fsfreeze alias=freeze-fs
    type s {virtio|isa} =virtio
inline-audio
    device s {ich9-intel-hda|intel-hda|AC97} required
    driver s {spice|none} =spice
inline-bwlimit
    clone n range=0..
    default n range=0..
    migration n range=0..
    move n range=0..
    restore n range=0..
inline-dev
    deny-write b =0
    gid i range=0..
    mode s ~ 0[0-7]{3}
    path s @pve-lxc-dev-string bare
    uid i range=0..
inline-draid-config
    data i range=1.. required
    spares i range=0.. required
inline-efidisk
    efitype s {2m|4m} =2m
    file s @pve-volume-id-or-qm-path bare required
    format s {raw|qcow|qed|qcow2|vmdk|cloop}
    import-from s @pve-volume-id-or-absolute-path
    ms-cert s {2011|2023|2023w|2023k} =2011
    pre-enrolled-keys b =0
    size s @disk-size
    volume alias=file
inline-features
    force_rw_sys b =0
    fuse b =0
    keyctl b =0
    mknod b =0
    mount s ~ (?:[a-zA-Z0-9_; ]+)
    nesting b =0
inline-ide +drive
    import-from s @pve-volume-id-or-absolute-path
    model s @urlencoded len=..120
    ssd b
    wwn s ~ (?:^(0x)[0-9a-fA-F]{16})
inline-ivshmem
    name s ~ [a-zA-Z0-9\-]+
    size i range=1.. required
inline-machine
    aw-bits n range=32..64
    enable-s3 b
    enable-s4 b
    type s len=..40 bare ~ (?:(pc|pc(-i440fx)?-\d+(\.\d+)+(\+pve\d+)?(\.pxe)?|q35|pc-q35-\d+(\.\d+)+(\+pve\d+)
            ?(\.pxe)?|virt(?:-\d+(\.\d+)+)?(\+pve\d+)?))
    viommu s {intel|virtio}
inline-memory
    current i range=16.. =512 bare required
inline-mp
    acl b
    backup b
    idmap s ~ (?:(?:^(?:passthrough|[ug]:[0-9]+:[0-9]+:[1-9][0-9]*(?:;[ug]:[0-9]+:[0-9]+:[1-9][0-9]*)*)$))
    keepattrs b =0
    mountoptions s ~ (?:(?:(?:(discard|lazytime|noatime|nodev|noexec|nosuid))(;(?:(discard|lazytime|noatime|
            nodev|noexec|nosuid)))*))
    mp s @pve-lxc-mp-string required
    quota b
    replicate b =1
    ro b
    shared b =0
    size s @disk-size
    volume s @pve-lxc-mp-string bare required
inline-net
    bridge s @pve-bridge-id
    e1000 alias=macaddr key=model
    e1000-82540em alias=macaddr key=model
    e1000-82544gc alias=macaddr key=model
    e1000-82545em alias=macaddr key=model
    e1000e alias=macaddr key=model
    firewall b
    host-tunnel b
    i82551 alias=macaddr key=model
    i82557b alias=macaddr key=model
    i82559er alias=macaddr key=model
    link_down b
    macaddr s @mac-addr
    model s {e1000|e1000-82540em|e1000-82544gc|e1000-82545em|e1000e|i82551|i82557b|i82559er|ne2k_isa|ne2k_pci|
            pcnet|rtl8139|virtio|vmxnet3} bare required
    mtu i range=1..65520
    ne2k_isa alias=macaddr key=model
    ne2k_pci alias=macaddr key=model
    pcnet alias=macaddr key=model
    queues i range=0..64
    rate n range=0..
    rtl8139 alias=macaddr key=model
    tag i range=1..4094
    trunks s ~ (?:\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*)
    virtio alias=macaddr key=model
    vmxnet3 alias=macaddr key=model
inline-net~2
    bridge s ~ [-_.\w\d]+
    firewall b
    gw s @ipv4
    gw6 s @ipv6
    host-managed b
    hwaddr s @mac-addr
    ip s @pve-ipv4-config
    ip6 s @pve-ipv6-config
    link_down b
    mtu i range=64..65535
    name s required ~ [-_.\w\d]+
    rate n
    tag i range=1..4094
    trunks s ~ (?:\d+(?:;\d+)*)
    type s {veth}
inline-numa
    cpus s required ~ (?:\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*)
    hostnodes s ~ (?:\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*)
    memory n
    policy s {preferred|bind|interleave}
inline-rootfs
    acl b
    idmap s ~ (?:(?:^(?:passthrough|[ug]:[0-9]+:[0-9]+:[1-9][0-9]*(?:;[ug]:[0-9]+:[0-9]+:[1-9][0-9]*)*)$))
    mountoptions s ~ (?:(?:(?:(discard|lazytime|noatime|nodev|noexec|nosuid))(;(?:(discard|lazytime|noatime|
            nodev|noexec|nosuid)))*))
    quota b
    replicate b =1
    ro b
    shared b =0
    size s @disk-size
    volume s @pve-lxc-mp-string bare required
inline-sata +drive
    import-from s @pve-volume-id-or-absolute-path
    ssd b
    wwn s ~ (?:^(0x)[0-9a-fA-F]{16})
inline-scsi +drive
    import-from s @pve-volume-id-or-absolute-path
    iothread b
    product s ~ [A-Za-z0-9\-_\s]{,16}
    queues i range=2..
    ro b
    scsiblock b =0
    ssd b
    vendor s ~ [A-Za-z0-9\-_\s]{,8}
    wwn s ~ (?:^(0x)[0-9a-fA-F]{16})
inline-spice_enhancements
    foldersharing b =0
    videostreaming s {off|all|filter} =off
inline-tpmstate
    file s @pve-volume-id-or-qm-path bare required
    format s {raw|qcow2|vmdk}
    import-from s @pve-volume-id-or-absolute-path
    size s @disk-size
    version s {v1.2|v2.0} =v1.2
    volume alias=file
inline-unused
    file s @pve-volume-id bare required
    volume alias=file
inline-unused~2
    volume s @pve-volume-id bare required
inline-usb
    host s bare ~ (?:(?:(?:(?:(?:(0x)?([0-9A-Fa-f]{4}):(0x)?([0-9A-Fa-f]{4})))|(?:(?:(\d+)\-(\d+(\.\d+)*)))|
            [Ss][Pp][Ii][Cc][Ee])))
    mapping s @pve-configid
    usb3 b =0
inline-vga
    clipboard s {vnc}
    memory i range=4..512
    type s {cirrus|qxl|qxl2|qxl3|qxl4|none|serial0..3|std|virtio|virtio-gl|vmware} =std bare
inline-virtio +drive
    import-from s @pve-volume-id-or-absolute-path
    iothread b
    ro b
inline-virtiofs
    cache s {auto|always|metadata|never} =auto
    direct-io b =0
    dirid s @pve-configid bare required
    expose-acl b =0
    expose-xattr b =0
"""
