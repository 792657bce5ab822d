"""The methods of the Proxmox Backup Server API that the simulator has, and their parameters.

The notation is read by reconciler/lab/proxmox/schema.py. `PARAMETERS` defines each parameter once; `NAME.2` is a second
definition of the same parameter, for the methods that say `NAME=NAME.2`. `METHODS`: method, path, who may; below it the
parameters, `?` after those that may be left out, `+SET` for a set of parameters.
"""

from __future__ import annotations

from typing import Final

PARAMETERS: Final = r"""
active-encryption-key s len=3..32 ~ID
add-datastore b
ashift i range=9..16 =12
associated-key a len=3..32 ~ID
auth-id s len=3..64 ~AUTH
backend s @backend-config
backing-device s ~ [0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}
backup-id s ~ID
backup-time i range=1..
backup-type s {vm|ct|host}
burst-in s len=1..64
burst-out s len=1..64
comment s len=..128 ~TEXT
compression s {gzip|lz4|lzjb|zle|zstd|on|off} =On
confirmation-password s len=1..1024 ~TEXT
counter-reset-schedule s @calendar-event
delete.user a {comment|firstname|lastname|email}
delete-groups b =false
delete.token a {comment}
delete.acl b
delete.datastore a {comment|gc-schedule|gc-on-unmount|prune-schedule|keep-last|keep-hourly|keep-daily|keep-weekly|
        keep-monthly|keep-yearly|verify-new|notify-user|notify|notification-mode|tuning|maintenance-mode|
        notification-thresholds|counter-reset-schedule}
delete.prune a {comment|disable|ns|max-depth|keep-last|keep-hourly|keep-daily|keep-weekly|keep-monthly|
        keep-yearly}
delete.sync a {remote|owner|comment|schedule|remove-vanished|group-filter|rate-in|burst-in|rate-out|burst-out|
        ns|remote-ns|max-depth|transfer-last|encrypted-only|verified-only|run-on-mount|unmount-on-done|
        sync-direction|worker-threads|active-encryption-key|associated-key}
delete.verify a {ignore-verified|comment|schedule|outdated-after|ns|max-depth|read-threads|verify-threads}
delete.remote a {comment|fingerprint|port|use-node-proxy}
destroy-data b =false
devices s @@inline-devices
digest s ~SHA256
disable b =false
download b =false
dry-run b =false
email s len=2..64 ~TEXT
enable b =true
encrypted-only b
error-on-protected b =true
errors b =false
exact b =false
expire i range=0.. =0
fingerprint s ~FINGERPRINT
firstname s len=2..64 ~TEXT
gc-on-unmount b
gc-schedule s @calendar-event
group s len=3..64 ~ (?:[^\s:/\x00-\x1f\x7f]+)
group-filter a
host s @host
http-only b =false
id s len=3..32 ~ID
ignore-verified b =true
include_tokens b =false
keep-daily i range=1..
keep-hourly i range=1..
keep-job-configs b =false
keep-last i range=1..
keep-monthly i range=1..
keep-weekly i range=1..
keep-yearly i range=1..
lastname s len=2..64 ~TEXT
limit i =50
limit.2 i range=0.. =50
maintenance-mode s @@inline-maintenance-mode
max-depth i range=0..7
max-depth.2 i range=0..7 =7
name s len=3..32 ~ID
name.2 s len=1..32 ~ID
node s ~NODE
notification-mode s {legacy-sendmail|notification-system} =notification-system
notification-thresholds s @@inline-notification-thresholds
notify s @@inline-notify
notify-user s len=3..64 ~USER
ns s len=..256 ~NAMESPACE
outdated-after i range=0..
overwrite-in-use b =false
owner s len=3..64 ~AUTH
parent s len=..256 ~NAMESPACE
password s len=1..1024 ~TEXT
password.2 s len=8..64 ~TEXT
password.3 s
path s len=1..128 ~ACL_PATH
path.2 s
path.3 s len=1..4096
port i
port.2 i range=0..65535
privs s
propagate b =true
prune-schedule s @calendar-event
raidlevel s {single|mirror|raid10|raidz|raidz2|raidz3}
rate-in s len=1..64
rate-out s len=1..64
read-threads i range=1..32 =1
regenerate b =false
remote s len=3..32 ~ID
remote-ns s len=..256 ~NAMESPACE
remote-store s len=3..32 ~ID
remove-vanished b =false
resync-corrupt b
reuse-datastore b =false
role s @role {Admin|Audit|NoAccess|DatastoreAdmin|DatastoreReader|DatastoreBackup|DatastorePowerUser|
        DatastoreAudit|RemoteAudit|RemoteAdmin|RemoteSyncOperator|RemoteSyncPushOperator|
        RemoteDatastorePowerUser|RemoteDatastoreAdmin|TapeAudit|TapeAdmin|TapeOperator|TapeReader}
run-on-mount b
running b =false
schedule s @calendar-event
since i
start i =0
start.2 i range=0.. =0
statusfilter a {ok|warning|error|unknown}
store s len=3..32 ~ID
sync-direction s {all|push|pull} =pull
sync-direction.2 s {pull|push} =pull
test-status b
tfa-challenge s
token-name s ~ID
transfer-last i range=1..
tuning s @@inline-tuning
typefilter s
unmount-on-done b
until i
upid s len=36.. ~UPID
use-node-proxy b =false
userfilter s
userid s len=3..64 ~USER
username s len=3..64 ~USER
verbose b =false
verified-only b
verify-new b
verify-threads i range=1..32 =4
worker-threads i range=1..32 =1
"""

METHODS: Final = r"""
GET /version : all
POST /access/ticket : world
    http-only? password?=password.3 path?=path.2 port?=port.2 privs? tfa-challenge? username
DELETE /access/ticket : world
GET /access/domains : world
GET /access/users : all
    include_tokens?
POST /access/users : /access/users Permissions.Modify
    comment? email? enable? expire? firstname? lastname? password?=password.2 userid
GET /access/users/{userid} : /access/users Sys.Audit or self
    userid
PUT /access/users/{userid} : /access/users Permissions.Modify or self
    comment? delete?=delete.user digest? email? enable? expire? firstname? lastname? password? userid
DELETE /access/users/{userid} : /access/users Permissions.Modify or self
    digest? userid
GET /access/users/{userid}/token : /access/users Sys.Audit or self
    userid
GET /access/users/{userid}/token/{token-name} : /access/users Sys.Audit or self
    token-name userid
POST /access/users/{userid}/token/{token-name} : /access/users Permissions.Modify or self
    comment? digest? enable? expire? token-name userid
PUT /access/users/{userid}/token/{token-name} : /access/users Permissions.Modify or self
    comment? delete?=delete.token digest? enable? expire? regenerate? token-name userid
DELETE /access/users/{userid}/token/{token-name} : /access/users Permissions.Modify or self
    digest? token-name userid
GET /access/acl : all
    exact? path?
PUT /access/acl : all
    auth-id? delete?=delete.acl digest? group? path propagate? role
GET /access/roles : all
GET /access/permissions : all
    auth-id? path?
PUT /access/password : all
    confirmation-password? password=password.2 userid
GET /config/datastore : all
POST /config/datastore : /datastore Datastore.Allocate
    backend? backing-device? comment? counter-reset-schedule? gc-on-unmount? gc-schedule? keep-daily?
    keep-hourly? keep-last? keep-monthly? keep-weekly? keep-yearly? maintenance-mode? name notification-mode?
    notification-thresholds? notify? notify-user? overwrite-in-use? path=path.3 prune-schedule? reuse-datastore?
    tuning? verify-new?
GET /config/datastore/{name} : /datastore/{name} Datastore.Audit
    name
PUT /config/datastore/{name} : /datastore/{name} Datastore.Modify
    comment? counter-reset-schedule? delete?=delete.datastore digest? gc-on-unmount? gc-schedule? keep-daily?
    keep-hourly? keep-last? keep-monthly? keep-weekly? keep-yearly? maintenance-mode? name notification-mode?
    notification-thresholds? notify? notify-user? prune-schedule? tuning? verify-new?
DELETE /config/datastore/{name} : /datastore/{name} Datastore.Allocate
    destroy-data? digest? keep-job-configs? name
GET /admin/datastore : all
GET /config/prune : all
POST /config/prune : all
    comment? disable? id keep-daily? keep-hourly? keep-last? keep-monthly? keep-weekly? keep-yearly? max-depth?
    ns? schedule store
GET /config/prune/{id} : all
    id
PUT /config/prune/{id} : all
    comment? delete?=delete.prune digest? disable? id keep-daily? keep-hourly? keep-last? keep-monthly? keep-weekly?
    keep-yearly? max-depth? ns? schedule? store?
DELETE /config/prune/{id} : all
    digest? id
GET /config/sync : all
    sync-direction?
POST /config/sync : all
    active-encryption-key? associated-key? burst-in? burst-out? comment? encrypted-only? group-filter? id
    max-depth? ns? owner? rate-in? rate-out? remote? remote-ns? remote-store remove-vanished? resync-corrupt?
    run-on-mount? schedule? store sync-direction?=sync-direction.2 transfer-last? unmount-on-done?
    verified-only? worker-threads?
GET /config/sync/{id} : all
    id
PUT /config/sync/{id} : all
    active-encryption-key? associated-key? burst-in? burst-out? comment? delete?=delete.sync digest?
    encrypted-only? group-filter? id max-depth? ns? owner? rate-in? rate-out? remote? remote-ns? remote-store?
    remove-vanished? resync-corrupt? run-on-mount? schedule? store? sync-direction?=sync-direction.2
    transfer-last? unmount-on-done? verified-only? worker-threads?
DELETE /config/sync/{id} : all
    digest? id
GET /config/verify : all
POST /config/verify : all
    comment? id ignore-verified? max-depth?=max-depth.2 ns? outdated-after? read-threads? schedule? store
    verify-threads?
GET /config/verify/{id} : all
    id
PUT /config/verify/{id} : all
    comment? delete?=delete.verify digest? id ignore-verified? max-depth?=max-depth.2 ns? outdated-after?
    read-threads? schedule? store? verify-threads?
DELETE /config/verify/{id} : all
    digest? id
GET /config/remote : all
POST /config/remote : /remote Remote.Modify
    auth-id comment? fingerprint? host name password port? use-node-proxy?
GET /config/remote/{name} : /remote/{name} Remote.Audit
    name
PUT /config/remote/{name} : /remote/{name} Remote.Modify
    auth-id? comment? delete?=delete.remote digest? fingerprint? host? name password? port? use-node-proxy?
DELETE /config/remote/{name} : /remote/{name} Remote.Modify
    digest? name
GET /admin/prune : all
    store?
POST /admin/prune/{id}/run : all
    id
GET /admin/sync : all
    store? sync-direction?
POST /admin/sync/{id}/run : all
    id
GET /admin/verify : all
    store?
POST /admin/verify/{id}/run : all
    id
GET /nodes/{node}/disks/zfs : /system/disks Sys.Audit
    node
POST /nodes/{node}/disks/zfs : /system/disks Sys.Modify
    add-datastore? ashift? compression? devices name node raidlevel
GET /nodes/{node}/certificates/info : /system/certificates Sys.Modify
    node
GET /nodes/{node}/tasks : all
    errors? limit? node running? since? start? statusfilter? store? typefilter? until? userfilter?
GET /nodes/{node}/tasks/{upid} : all ; open
DELETE /nodes/{node}/tasks/{upid} : all
    node upid
GET /nodes/{node}/tasks/{upid}/status : all
    node upid
GET /nodes/{node}/tasks/{upid}/log : all
    download? limit?=limit.2 node start?=start.2 test-status? upid
GET /status/datastore-usage : all
GET /admin/datastore/{store}/status : all
    store verbose?
GET /admin/datastore/{store}/snapshots : all
    backup-id? backup-type? ns? store
DELETE /admin/datastore/{store}/snapshots : all
    backup-id backup-time backup-type ns? store
GET /admin/datastore/{store}/groups : all
    ns? store
DELETE /admin/datastore/{store}/groups : all
    backup-id backup-type error-on-protected? ns? store
GET /admin/datastore/{store}/namespace : all
    max-depth?=max-depth.2 parent? store
POST /admin/datastore/{store}/namespace : all
    name=name.2 parent? store
DELETE /admin/datastore/{store}/namespace : all
    delete-groups? error-on-protected? ns store
GET /admin/datastore/{store}/gc : /datastore/{store} Datastore.Audit
    store
POST /admin/datastore/{store}/gc : /datastore/{store} Datastore.Modify
    store
POST /admin/datastore/{store}/verify : all
    backup-id? backup-time? backup-type? ignore-verified? max-depth?=max-depth.2 ns? outdated-after?
    read-threads? store verify-threads?
POST /admin/datastore/{store}/prune-datastore : all
    dry-run? keep-daily? keep-hourly? keep-last? keep-monthly? keep-weekly? keep-yearly? max-depth? ns? store
"""

PROPERTY_STRINGS: Final = r"""
inline-maintenance-mode
    message s len=..64 ~TEXT
    type s {read-only|offline|delete|unmount|s3-refresh} required bare
inline-notification-thresholds
    s3-delete i
    s3-download s len=1..64
    s3-get i
    s3-head i
    s3-post i
    s3-put i
    s3-upload s len=1..64
inline-notify
    gc s {never|always|error}
    prune s {never|always|error}
    sync s {never|always|error}
    verify s {never|always|error}
inline-tuning
    chunk-order s {none|inode} =inode
    default-verification-readers i range=1..32 =1
    default-verification-workers i range=1..32 =4
    gc-atime-cutoff i range=1..2880 =1445
    gc-atime-safety-check b =true
    gc-cache-capacity i range=0..8388608 =1048576
    sync-level s {none|file|filesystem} =filesystem
"""
