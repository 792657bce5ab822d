"""The methods of the Proxmox VE API that the simulator has, and their parameters.

The notation is read by reconciler/lab/proxmox/schema.py. `PARAMETERS` defines each parameter once; `NAME.2` is a second
definition of the same parameter, for the methods that say `NAME=NAME.2`. `METHODS`: method, path, who may; below it the
parameters, `?` after those that may be left out, `+SET` for a set of parameters.
"""

from __future__ import annotations

from typing import Final

PARAMETERS: Final = r"""
acpi b =1
add_storage b =0
affinity s @pve-cpuset
agent s @@inline-agent
all b =0
allow-ksm b =1
allow-move b =0
amd-sev s @pve-qemu-sev-fmt
append b requires=groups
append.2 b requires=privs
arch s {x86_64|aarch64}
arch.2 s {amd64|i386|arm64|armhf|riscv32|riscv64} =amd64
archive s len=..255
args s
ashift i range=9..16 =12
audio0 s @@inline-audio
authsupported s
autostart b =0
background_delay i range=1..30
balloon i range=0..
base s @pve-volume-id
bios s {seabios|ovmf} =seabios
blocksize s @pve-storage-zfs-blocksize
boot s @pve-qm-boot
bootdisk s @pve-qm-bootdisk ~ (?:(ide|sata|scsi|virtio)\d+)
bwlimit i range=0..
bwlimit.2 s @@inline-bwlimit
bwlimit.3 i range=0.. =0
bwlimit.4 n range=0..
cdrom s @pve-qm-ide
cicustom s @pve-qm-cicustom
cipassword s
citype s {configdrive2|nocloud|opennebula}
ciupgrade b =1
ciuser s
cleanup-config b =0
cleanup-disks b =0
cmode s {shell|console|tty} =tty
comment s
comment.2 s len=..4096
comment.3 s len=..2048
comment.4 s len=..512
compress s {0|1|gzip|lzo|zstd} =0
compression s {on|off|gzip|lz4|lzjb|zle|zstd} =on
comstar_hg s
comstar_tg s
console b =1
confirmation-password s len=5..64
content s @pve-storage-content-list
content-dirs s @pve-dir-override-list
content.2 s @pve-storage-content
cores i range=1.. =1
cores.2 i range=1..8192
cpu s @pve-vm-cpu-conf
cpulimit n range=0..128 =0
cpulimit.2 n range=0..8192 =0
cpuunits i range=1..262144
cpuunits.2 i range=0..500000
create-base-path b =yes
create-subdirs b =yes
current b =0
data-pool s
datastore s
debug b =0
delay i range=1..30
delete s @pve-configid-list
delete.2 b =0
delete.3 s @pve-configid-list len=..4096
delete.4 b
description s len=..8192
destroy-unreferenced-disks b =0
destroy-unreferenced-disks.2 b
dev[n] s @@inline-dev
devices s @string-list
digest s len=..40
digest.2 s len=..64
disable b
disk s {ide0..3|scsi0..30|virtio0..15|sata0..5|efidisk0|tpmstate0}
disk.2 s {ide0..3|scsi0..30|virtio0..15|sata0..5|efidisk0|tpmstate0|unused0..255}
domain s len=..256
dow s @pve-day-of-week-list =mon,tue,wed,thu,fri,sat,sun requires=starttime
dow.2 s @pve-day-of-week-list requires=starttime
download b
draid-config s @@inline-draid-config
dumpdir s
efidisk0 s @@inline-efidisk
email s @email-opt len=..254
enable b =1
enabled b =1
enabled.2 b =0
enabled.3 b
encryption-key s
entrypoint s =/sbin/init ~ (?:[^\x00-\x08\x0a-\x1F\x7F]+)
env s ~ (?:(?:\w+=[^\x00-\x08\x0a-\x1F\x7F]*)(?:\0\w+=[^\x00-\x08\x0a-\x1F\x7F]*)*)
errors b =0
exclude s @pve-vmid-list
exclude-path a
expire i range=0..
export s @pve-storage-path
features s @@inline-features
filename s
fingerprint s ~ ([A-Fa-f0-9]{2}:){31}[A-Fa-f0-9]{2}
firstname s len=..1024
fleecing s @backup-fleecing
force b
force-cpu s
force.2 b =0
force.3 b requires=delete
force.4 b requires=archive
forceStop b =0
format s {raw|qcow2|subvol|vmdk}
format.2 b =0
format.3 s {raw|qcow2|subvol|vmdk} requires=size
format.4 s {raw|qcow2|vmdk}
freeze b
fs-name s @pve-configid
full b =0
full.2 b
fuse b
groupid s @pve-groupid
groups s @pve-groupid-list
guest i @pve-vmid range=100..999999999
ha-managed b =0
hookscript s @pve-volume-id
hostname s @dns-name len=..255
hostpci[n] s @pve-qm-hostpci
hotplug s @pve-hotplug-features =network,disk,usb
hugepages s {any|2|1024}
id s @pve-replication-job-id ~REPLICATION_JOB
id.2 s len=..50 ~ \S+
id.3 s @pve-configid
ide[n] s @@inline-ide
idlist s @pve-configid-list
ignore-unpack-errors b
import-working-storage s @pve-storage-id
intel-tdx s @pve-qemu-tdx-fmt
ionice i range=0..8 =7
ipconfig[n] s @pve-qm-ipconfig
is_mountpoint s =no
iscsiprovider s
ivshmem s @@inline-ivshmem
keep b =0
keepActive b =0
keephugepages b =0
keyboard s {de|de-ch|da|en-gb|en-us|es|fi|fr|fr-be|fr-ca|fr-ch|hu|is|it|ja|lt|mk|nl|no|pl|pt|pt-br|sv|sl|tr}
keyring s
keys s ~ [0-9a-zA-Z!=]{0,4096}
krbd b =0
kvm b =1
lastname s len=..1024
limit i range=0.. =50
limit.2 i range=0..
lio_tpg s
live-restore b
localtime b
lock s {backup|clone|create|migrate|rollback|snapshot|snapshot-delete|suspending|suspended}
lock.2 s {backup|create|destroyed|disk|fstrim|migrate|mounted|rollback|snapshot|snapshot-delete}
lockwait i range=0.. =180
machine s @@inline-machine
mailnotification s {always|failure} =always
mailto s @email-or-username-list
master-pubkey s
max-protected-backups i range=-1..
memory s @@inline-memory
memory.2 i range=16.. =512
migrate_downtime n range=0.. =0.1
migrate_speed i range=0.. =0
migratedfrom s @pve-node
migration_network s @CIDR
migration_type s {secure|insecure}
mkdir b =yes
mode s {snapshot|suspend|stop} =snapshot
monhost s @pve-storage-portal-dns-list
mountpoint s @pve-storage-path
mp[n] s @@inline-mp
name s @pve-storage-id
name.2 s @dns-name
nameserver s @address-list
nameserver.2 s @lxc-ip-with-ll-iface-list
namespace s
net[n] s @@inline-net
net[n].2 s @@inline-net~2
nets-host-mtu s ~ net\d+=\d+(,net\d+=\d+)*
new-format b =1
nocheck b
nocow b =0
node s @pve-node
nodes s @pve-node-list
notes s
notes-template s len=..1024 requires=storage
notification-mode s {auto|legacy-sendmail|notification-system} =auto
nowritecache b
numa b =0
numa[n] s @@inline-numa
onboot b =0
online b
options s @pve-storage-options
ostemplate s len=..255
ostype s {other|wxp|w2k|w2k3|w2k8|wvista|win7|win8|win10|win11|l24|l26|solaris} =other
ostype.2 s {debian|devuan|ubuntu|centos|fedora|opensuse|archlinux|alpine|gentoo|nixos|unmanaged}
otp s
overrule-shutdown b =0
parallel[n] s ~ (?:/dev/parport\d+|/dev/usb/lp\d+)
password s len=..256
password.2 s len=8..64
password.3 s
password.4 s len=5..
path s
path.2 s @pve-storage-path
path.3 s len=..64 requires=privs
pbs-change-detection-mode s {legacy|data|metadata}
performance s @backup-performance
pigz i =0
pool s
pool.2 s @pve-poolid
poolid s @pve-poolid
port i range=1..65535
portal s @pve-storage-portal-dns
preallocation s {off|metadata|falloc|full} =metadata
privs s @pve-priv-list
privs.2 s @pve-priv-list len=..64 requires=path
privsep b =1
propagate b =1
protected b requires=storage
protected.2 b
protection b =0
prune-backups s @prune-backups
prune-backups.2 s @prune-backups =keep-all=1
purge b
purge.2 b =0
quiet b =0
raidlevel s {single|mirror|raid10|raidz|raidz2|raidz3|draid|draid2|draid3}
rate n range=1..
realm s @pve-realm len=..32
reboot b =1
regenerate b =0
remove b =1
remove_job s {local|full}
repeat-missed b =0
restore b
revert s @pve-configid-list
rng0 s @pve-qm-rng
roleid s @pve-roleid
roles s @pve-roleid-list
rootfs s @@inline-rootfs
saferemove b
saferemove-stepsize i {1|2|4|8|16|32} =32
saferemove_throughput s
sata[n] s @@inline-sata
schedule s @pve-calendar-event len=..128 =*/15
schedule.2 s @pve-calendar-event len=..128
script s
scsi[n] s @@inline-scsi
scsihw s {lsi|lsi53c810|virtio-scsi-pci|virtio-scsi-single|megasas|pvscsi} =lsi
searchdomain s
searchdomain.2 s @dns-name-list
serial[n] s ~ (?:(/dev/[^,]+|socket))
server s @pve-storage-server
share s
shared b
shares i range=0..50000 =1000
since i
size s ~ \d+[MG]?
size.2 s ~ \+?\d+(\.\d+)?[KMGT]?
skip-cert-verification b =false
skiplock b
smbios1 s @pve-qm-smbios1 len=..512
smbversion s {default|2.0|2.1|3|3.0|3.11} =default
smp i range=1.. =1
snapshot s @pve-configid len=..40
snapshot-as-volume-chain b =0
sockets i range=1.. =1
source s @pve-node
source.2 s {archive|active|all} =archive
sparse b
spice_enhancements s @@inline-spice_enhancements
ssh-public-keys s
sshkeys s @urlencoded
start b =0
start.2 i range=0.. =0
start.3 i range=0..
startdate s =now ~ (?:(now|\d{4}-\d{1,2}-\d{1,2}(T\d{1,2}:\d{1,2}:\d{1,2})?))
starttime s ~ \d{1,2}:\d{1,2}
startup s @pve-startup-order
statestorage s @pve-storage-id requires=todisk
stateuri s len=..128
statusfilter s @pve-task-status-type-list
stdexcludes b =1
stop b =0
stopwait i range=0.. =10
storage s @pve-storage-id
storage.2 s @pve-storage-id-list
storage.3 s @pve-storage-id =local
subdir s @pve-storage-path
swap i range=0.. =512
tablet b =1
tagged_only b
tags s @pve-tag-list
target s @pve-node
target-digest s len=..40
target-disk s {ide0..3|scsi0..30|virtio0..15|sata0..5|efidisk0|tpmstate0|unused0..255}
target-vmid i @pve-vmid range=100..999999999
target.2 s
target_node s @pve-node
targetstorage s @storage-pair-list
tdf b =0
template b =0
tfa-challenge s
thinpool s @pve-storage-vgname
timeout i range=0..
timezone s @pve-ct-timezone
tmpdir s
todisk b =0
tokenid s ~ (?:[A-Za-z][A-Za-z0-9\.\-_]+)
tokens s @pve-tokenid-list
tpmstate0 s @@inline-tpmstate
tty i range=0..6 =2
type s {btrfs|cephfs|cifs|dir|esxi|iscsi|iscsidirect|lvm|lvmthin|nfs|pbs|rbd|zfs|zfspool}
type.2 s {vm|storage|node|sdn}
type.3 s {local}
type.4 s {qemu|lxc|storage} requires=poolid
type.5 s {qemu|lxc|storage}
typefilter s
unique b requires=archive
unique.2 b requires=restore
unprivileged b =0
until i
unused[n] s @@inline-unused
unused[n].2 s @@inline-unused~2
upid s
usb[n] s @@inline-usb
userfilter s
userid s @pve-userid len=..64
userid.2 s ~ (?:^(?:[^\s:/]+)\@(?:[A-Za-z][A-Za-z0-9\.\-_]+)(?:!(?:[A-Za-z][A-Za-z0-9\.\-_]+))?$)
username s
username.2 s len=..64
users s @pve-userid-list
vcpus i range=1.. =0
vga s @@inline-vga
vgname s @pve-storage-vgname
virtio[n] s @@inline-virtio
virtiofs[n] s @@inline-virtiofs
vmgenid s ~ (?:(?:[a-fA-F0-9]{8}(?:-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}|[01]))
vmid i @pve-vmid range=100..999999999
vmid.2 s @pve-vmid-list
vms s @pve-vmid-list
vmstatestorage s @pve-storage-id
volume s
watchdog s @pve-qm-watchdog
with-conntrack-state b =0
with-local-disks b
zfs-base-path s @pve-storage-path
zstd i =1
"""

SETS: Final = r"""
qemu-options
    acpi? affinity? agent? allow-ksm? amd-sev? arch? args? audio0? autostart? balloon? bios? boot? bootdisk?
    cdrom? cicustom? cipassword? citype? ciupgrade? ciuser? cores? cpu? cpulimit? cpuunits? description?
    efidisk0? freeze? hookscript? hostpci[n]? hotplug? hugepages? ide[n]? intel-tdx? ipconfig[n]? ivshmem?
    keephugepages? keyboard? kvm? localtime? lock? machine? memory? migrate_downtime? migrate_speed?
    name?=name.2 nameserver? net[n]? node numa? numa[n]? onboot? ostype? parallel[n]? protection? reboot? rng0?
    sata[n]? scsi[n]? scsihw? searchdomain? serial[n]? shares? smbios1? smp? sockets? spice_enhancements?
    sshkeys? startdate? startup? tablet? tags? tdf? template? tpmstate0? unused[n]? usb[n]? vcpus? vga?
    virtio[n]? virtiofs[n]? vmgenid? vmid vmstatestorage? watchdog?
lxc-options
    arch?=arch.2 cmode? console? cores?=cores.2 cpulimit?=cpulimit.2 cpuunits?=cpuunits.2 debug? description?
    dev[n]? entrypoint? env? features? hookscript? hostname? lock?=lock.2 memory?=memory.2 mp[n]?
    nameserver?=nameserver.2 net[n]?=net[n].2 node onboot? ostype?=ostype.2 protection? rootfs?
    searchdomain?=searchdomain.2 startup? swap? tags? template? timezone? tty? unprivileged?
    unused[n]?=unused[n].2 vmid
storage-options
    blocksize? bwlimit?=bwlimit.2 comstar_hg? comstar_tg? content? content-dirs? create-base-path?
    create-subdirs? data-pool? disable? domain? encryption-key? fingerprint? format? fs-name? fuse?
    is_mountpoint? keyring? krbd? lio_tpg? master-pubkey? max-protected-backups? mkdir? monhost? mountpoint?
    namespace? nocow? nodes? nowritecache? options? password? pool? port? preallocation? prune-backups?
    saferemove? saferemove-stepsize? saferemove_throughput? server? shared? skip-cert-verification? smbversion?
    snapshot-as-volume-chain? sparse? storage subdir? tagged_only? username? zfs-base-path?
backup-options
    all? bwlimit?=bwlimit.3 comment?=comment.4 compress? dumpdir? enabled? exclude? exclude-path? fleecing?
    ionice? lockwait? mailnotification? mailto? mode? node? notes-template? notification-mode?
    pbs-change-detection-mode? performance? pigz? pool? protected? prune-backups?=prune-backups.2 quiet? remove?
    repeat-missed? schedule?=schedule.2 script? starttime? stdexcludes? stop? stopwait? storage? tmpdir?
    vmid?=vmid.2 zstd?
"""

METHODS: Final = r"""
GET /version : all
GET /cluster/status : / Sys.Audit
GET /cluster/resources : all
    type?=type.2
GET /cluster/replication : all
POST /cluster/replication : all
    comment?=comment.2 disable? id rate? remove_job? schedule? source? target type=type.3
GET /cluster/replication/{id} : all
    id
PUT /cluster/replication/{id} : all
    comment?=comment.2 delete?=delete.3 digest?=digest.2 disable? id rate? remove_job? schedule? source?
DELETE /cluster/replication/{id} : all
    force?=force.2 id keep?
GET /nodes : all
GET /nodes/{node}/replication : all
    guest? node
GET /nodes/{node}/replication/{id} : all
    id node
GET /nodes/{node}/replication/{id}/status : all
    id node
GET /nodes/{node}/replication/{id}/log : all
    id limit?=limit.2 node start?=start.3
POST /nodes/{node}/replication/{id}/schedule_now : all
    id node
GET /storage : all
    type?
POST /storage : /storage Datastore.Allocate
    +storage-options authsupported? base? datastore? export? iscsiprovider? path?=path.2 portal? share?
    target?=target.2 thinpool? type vgname?
GET /storage/{storage} : /storage/{storage} Datastore.Allocate
    storage
PUT /storage/{storage} : /storage Datastore.Allocate
    +storage-options delete?=delete.3 digest?=digest.2
DELETE /storage/{storage} : /storage Datastore.Allocate
    storage
GET /nodes/{node}/storage : all
    content? enabled?=enabled.2 format?=format.2 node storage? target?
GET /nodes/{node}/storage/{storage} : /storage/{storage} Datastore.Audit|Datastore.AllocateSpace
    node storage
GET /nodes/{node}/storage/{storage}/status : /storage/{storage} Datastore.Audit|Datastore.AllocateSpace
    node storage
GET /nodes/{node}/storage/{storage}/content : /storage/{storage} Datastore.Audit|Datastore.AllocateSpace
    content?=content.2 node storage vmid?
POST /nodes/{node}/storage/{storage}/content : /storage/{storage} Datastore.AllocateSpace
    filename format?=format.3 node size storage vmid
GET /nodes/{node}/storage/{storage}/content/{volume} : all
    node storage? volume
POST /nodes/{node}/storage/{storage}/content/{volume} : root
    node storage? target=target.2 target_node? volume
PUT /nodes/{node}/storage/{storage}/content/{volume} : all
    node notes? protected?=protected.2 storage? volume
DELETE /nodes/{node}/storage/{storage}/content/{volume} : all
    delay? node storage? volume
GET /nodes/{node}/storage/{storage}/import-metadata : all
    node storage volume
GET /nodes/{node}/disks/zfs : / Sys.Audit
    node
POST /nodes/{node}/disks/zfs : / Sys.Modify
    add_storage? ashift? compression? devices draid-config? name node raidlevel
GET /nodes/{node}/disks/zfs/{name} : / Sys.Audit
    name node
DELETE /nodes/{node}/disks/zfs/{name} : / Sys.Modify
    cleanup-config? cleanup-disks? name node
GET /access/users : all
    enabled?=enabled.3 full?
POST /access/users : create-user
    comment?=comment.3 email? enable? expire? firstname? groups? keys? lastname? password?=password.2 userid
GET /access/users/{userid} : read-user
    userid
PUT /access/users/{userid} : update-user
    append? comment?=comment.3 email? enable? expire? firstname? groups? keys? lastname? userid
DELETE /access/users/{userid} : delete-user
    userid
GET /access/users/{userid}/token : own-token
    userid
GET /access/users/{userid}/token/{tokenid} : own-token
    tokenid userid
POST /access/users/{userid}/token/{tokenid} : own-token
    comment? expire? privsep? tokenid userid
PUT /access/users/{userid}/token/{tokenid} : own-token
    comment? delete? expire? privsep? regenerate? tokenid userid
DELETE /access/users/{userid}/token/{tokenid} : own-token
    tokenid userid
GET /access/acl : all
PUT /access/acl : modify-acl
    delete?=delete.4 groups? path propagate? roles tokens? users?
GET /access/roles : all
POST /access/roles : /access Sys.Modify
    privs? roleid
GET /access/roles/{roleid} : all
    roleid
PUT /access/roles/{roleid} : /access Sys.Modify
    append?=append.2 privs? roleid
DELETE /access/roles/{roleid} : /access Sys.Modify
    roleid
GET /access/groups : all
POST /access/groups : /access/groups Group.Allocate
    comment? groupid
GET /access/groups/{groupid} : /access/groups Sys.Audit|Group.Allocate
    groupid
PUT /access/groups/{groupid} : /access/groups Group.Allocate
    comment? groupid
DELETE /access/groups/{groupid} : /access/groups Group.Allocate
    groupid
GET /access/permissions : all
    path? userid?=userid.2
GET /access/ticket : world ; open
POST /access/ticket : world ; no-token
    new-format? otp? password=password.3 path?=path.3 privs?=privs.2 realm? tfa-challenge? username=username.2
GET /access/domains : world
PUT /access/password : password ; no-token
    confirmation-password? password=password.2 userid
GET /cluster/backup : / Sys.Audit
POST /cluster/backup : / Sys.Modify
    +backup-options dow? id?=id.3
GET /cluster/backup/{id} : / Sys.Audit
    id=id.2
PUT /cluster/backup/{id} : / Sys.Modify
    +backup-options delete? dow?=dow.2 id=id.2
DELETE /cluster/backup/{id} : / Sys.Modify
    id=id.2
GET /cluster/tasks : all
GET /nodes/{node}/qemu : all
    full?=full.2 node
POST /nodes/{node}/qemu : all
    +qemu-options archive? bwlimit? force?=force.4 ha-managed? import-working-storage? live-restore?
    pool?=pool.2 start? storage? unique?
GET /nodes/{node}/qemu/{vmid} : all
    node vmid
DELETE /nodes/{node}/qemu/{vmid} : /vms/{vmid} VM.Allocate
    destroy-unreferenced-disks? node purge? skiplock? vmid
GET /nodes/{node}/qemu/{vmid}/config : /vms/{vmid} VM.Audit
    current? node snapshot? vmid
POST /nodes/{node}/qemu/{vmid}/config : /vms/{vmid} %qemu-config
    +qemu-options background_delay? delete? digest? force?=force.3 import-working-storage? revert? skiplock?
PUT /nodes/{node}/qemu/{vmid}/config : /vms/{vmid} %qemu-config
    +qemu-options delete? digest? force?=force.3 revert? skiplock?
GET /nodes/{node}/qemu/{vmid}/pending : /vms/{vmid} VM.Audit
    node vmid
GET /nodes/{node}/qemu/{vmid}/status : all
    node vmid
GET /nodes/{node}/qemu/{vmid}/status/current : /vms/{vmid} VM.Audit
    node vmid
POST /nodes/{node}/qemu/{vmid}/status/start : /vms/{vmid} VM.PowerMgmt
    force-cpu? machine? migratedfrom? migration_network? migration_type? nets-host-mtu? node skiplock? stateuri?
    targetstorage? timeout? vmid with-conntrack-state?
POST /nodes/{node}/qemu/{vmid}/status/stop : /vms/{vmid} VM.PowerMgmt
    keepActive? migratedfrom? node overrule-shutdown? skiplock? timeout? vmid
POST /nodes/{node}/qemu/{vmid}/status/shutdown : /vms/{vmid} VM.PowerMgmt
    forceStop? keepActive? node skiplock? timeout? vmid
POST /nodes/{node}/qemu/{vmid}/status/reboot : /vms/{vmid} VM.PowerMgmt
    node timeout? vmid
POST /nodes/{node}/qemu/{vmid}/status/reset : /vms/{vmid} VM.PowerMgmt
    node skiplock? vmid
POST /nodes/{node}/qemu/{vmid}/status/suspend : /vms/{vmid} VM.PowerMgmt
    node skiplock? statestorage? todisk? vmid
POST /nodes/{node}/qemu/{vmid}/status/resume : /vms/{vmid} VM.PowerMgmt
    nocheck? node skiplock? vmid
PUT /nodes/{node}/qemu/{vmid}/resize : /vms/{vmid} VM.Config.Disk
    digest? disk node size=size.2 skiplock? vmid
POST /nodes/{node}/qemu/{vmid}/move_disk : /vms/{vmid} VM.Config.Disk
    bwlimit? delete?=delete.2 digest? disk=disk.2 format?=format.4 node storage? target-digest? target-disk?
    target-vmid? vmid
PUT /nodes/{node}/qemu/{vmid}/unlink : /vms/{vmid} VM.Config.Disk
    force? idlist node vmid
GET /nodes/{node}/qemu/{vmid}/migrate : /vms/{vmid} VM.Migrate
    node target? vmid
POST /nodes/{node}/qemu/{vmid}/migrate : /vms/{vmid} VM.Migrate
    bwlimit? force? migration_network? migration_type? node online? target targetstorage? vmid
    with-conntrack-state? with-local-disks?
POST /nodes/{node}/qemu/{vmid}/template : /vms/{vmid} VM.Allocate
    disk? node vmid
GET /nodes/{node}/tasks : all
    errors? limit? node since? source?=source.2 start?=start.2 statusfilter? typefilter? until? userfilter?
    vmid?
GET /nodes/{node}/tasks/{upid} : all
    node upid
DELETE /nodes/{node}/tasks/{upid} : all
    node upid
GET /nodes/{node}/tasks/{upid}/status : all
    node upid
GET /nodes/{node}/tasks/{upid}/log : all
    download? limit? node start?=start.2 upid
GET /nodes/{node}/version : all
    node
GET /nodes/{node}/lxc : all
    node
POST /nodes/{node}/lxc : all
    +lxc-options bwlimit?=bwlimit.4 force? ha-managed? ignore-unpack-errors? ostemplate password?=password.4
    pool?=pool.2 restore? ssh-public-keys? start? storage?=storage.3 unique?=unique.2
GET /nodes/{node}/lxc/{vmid} : all
    node vmid
DELETE /nodes/{node}/lxc/{vmid} : /vms/{vmid} VM.Allocate
    destroy-unreferenced-disks?=destroy-unreferenced-disks.2 force?=force.2 node purge?=purge.2 vmid
GET /nodes/{node}/lxc/{vmid}/config : /vms/{vmid} VM.Audit
    current? node snapshot? vmid
PUT /nodes/{node}/lxc/{vmid}/config : /vms/{vmid} %lxc-config
    +lxc-options delete? digest? revert?
GET /pools : all
    poolid? type?=type.4
POST /pools : /pool/{poolid} Pool.Allocate
    comment? poolid
PUT /pools : /pool/{poolid} Pool.Allocate
    allow-move? comment? delete?=delete.2 poolid storage?=storage.2 vms?
DELETE /pools : /pool/{poolid} Pool.Allocate
    poolid
GET /pools/{poolid} : /pool/{poolid} Pool.Audit
    poolid type?=type.5
PUT /pools/{poolid} : /pool/{poolid} Pool.Allocate
    allow-move? comment? delete?=delete.2 poolid storage?=storage.2 vms?
DELETE /pools/{poolid} : /pool/{poolid} Pool.Allocate
    poolid
GET /cluster/nextid : all
    vmid?
"""
