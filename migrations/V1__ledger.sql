-- pgsluice's own tables, version 1.
--
-- Names are unqualified on purpose: the migrator sets search_path to the configured schema first.
-- Migrations only expand (add tables, nullable columns, indexes), so that an old and a new binary
-- can work on one schema during a rollout; each one updates schema_t at its end.
--
-- Four decisions that look unusual:
--
-- * No foreign keys. Each would lock its parent row (`for key share`) for every event written, on
--   a handful of sink_t and stream_t rows that all transactions share. Rows are written by pgsluice
--   only, with keys it read from those tables in the same session; sinks and streams are never
--   deleted while rows refer to them.
-- * Text keys use the collation "C": comparing is cheaper, and an upgrade of the operating system's
--   collation library cannot corrupt their indexes.
-- * Every position of a record is (stream, "offset"). A stream is one log of one partition as one
--   sink reads it; when a topic was deleted and created again and an operator accepts the new log,
--   a new stream begins, so the same offset of the old log is another key.
-- * No check constraints on aggregate_t and notification_t. The server parses and prepares a check
--   anew for every statement; the handful these tables had cost a quarter of all throughput
--   (measured). Their rules hold by construction: only store/ writes these rows.

create table schema_t (
    version integer not null,
    min_binary integer not null,
    migrated_at timestamptz not null default now(),
    constraint schema_t_versions check (min_binary between 1 and version)
);
create unique index schema_t_one_row on schema_t ((true));
comment on table schema_t is 'The version of this schema; always one row.';
comment on column schema_t.version is 'Newest migration that was applied.';
comment on column schema_t.min_binary is
    'Oldest binary that can work with this schema: the newest migration it knows must be at least this one.';

create table sink_t (
    sink smallint generated always as identity primary key,
    name text collate "C" not null,
    cluster_id text,
    created_at timestamptz not null default now(),
    constraint sink_t_name unique (name)
);
comment on table sink_t is 'One row for every pgsluice deployment that writes here.';
comment on column sink_t.name is 'kafka.group of the deployment, which is also its consumer group.';
comment on column sink_t.cluster_id is
    'Id of the Kafka cluster it reads; a deployment that meets another cluster refuses to start, because offsets mean nothing there.';

create table stream_t (
    stream integer generated always as identity primary key,
    sink smallint not null,
    topic text collate "C" not null,
    partition integer not null,
    log_epoch integer not null default 0,
    next_offset bigint,
    owner_epoch bigint not null default 0,
    owner text,
    anchor_offset bigint,
    anchor_time bigint,
    anchor_crc bigint,
    progressed_at timestamptz,
    constraint stream_t_log unique (sink, topic, partition, log_epoch),
    constraint stream_t_numbers check (
        partition >= 0 and log_epoch >= 0 and next_offset >= 0 and owner_epoch >= 0),
    constraint stream_t_anchor check (
        (anchor_offset is null) = (anchor_crc is null) and anchor_offset < next_offset)
) with (
    -- A few rows, each updated many times a second: room for HOT updates, early vacuum.
    fillfactor = 20,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000
);
comment on table stream_t is 'Progress: one row for every log of a partition that a sink reads.';
comment on column stream_t.log_epoch is
    'Counts the logs this partition has had: 0, and one more each time an operator accepted a new log. The highest one is read.';
comment on column stream_t.next_offset is
    'Every record below has its final outcome; reading goes on here. Null while no position is known.';
comment on column stream_t.owner_epoch is
    'Raised by every process that takes the partition; progress moves only under the newest value.';
comment on column stream_t.owner is 'Who took it last, for people.';
comment on column stream_t.anchor_offset is
    'The last finished record; a log that holds another record there is another log.';
comment on column stream_t.anchor_time is 'Its timestamp in milliseconds since 1970.';
comment on column stream_t.anchor_crc is 'CRC-32 of its key and value.';
comment on column stream_t.progressed_at is 'When next_offset moved last.';

create table aggregate_t (
    sink smallint not null,
    aggregate_type text collate "C" not null,
    aggregate_id text collate "C" not null,
    version bigint,
    stream integer not null,
    "offset" bigint not null,
    gap bigint not null default 0,
    deleted boolean not null default false,
    event_id text,
    parked_at timestamptz,
    parked_reason text,
    updated_at timestamptz not null default now(),
    state jsonb,
    constraint aggregate_t_pk primary key (sink, aggregate_type, aggregate_id)
) with (
    -- Rows are updated in place: room on the page keeps the update HOT, away from the index.
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.05
);
create index aggregate_t_parked_at on aggregate_t (sink, parked_at) where parked_at is not null;
comment on table aggregate_t is
    'The ledger: one row for every aggregate, moved by each event that takes effect, in the same transaction. Holds the document of document routes.';
comment on column aggregate_t.version is
    'Version after the last applied event; null for unversioned events.';
comment on column aggregate_t.stream is
    'With "offset": the last record of the aggregate that was applied, dead-lettered or parked.';
comment on column aggregate_t.gap is
    'Versions that were missing before the last applied group; 0 for none.';
comment on column aggregate_t.deleted is 'The last applied event deleted the aggregate.';
comment on column aggregate_t.event_id is 'Id of the last applied event.';
comment on column aggregate_t.parked_at is
    'Set while later events wait behind a dead letter of this aggregate.';
comment on column aggregate_t.parked_reason is 'Why, as in dead_letter_t.reason.';
comment on column aggregate_t.state is 'The document, written by document routes.';

create table notification_t (
    stream integer not null,
    redrives integer not null default 0,
    "offset" bigint not null,
    aggregate_version bigint,
    nonce bigint,
    event_ts timestamptz,
    process_ts timestamptz not null default now(),
    read_ts timestamptz,
    event_id text,
    event_type text,
    aggregate_type text,
    aggregate_id text,
    host_id text,
    user_id text,
    transaction_id text,
    correlation_id text,
    causation_id text,
    status text not null,
    reason text,
    sqlstate text,
    error text,
    event_json jsonb,
    constraint notification_t_pk primary key (stream, "offset")
) with (
    -- Insert only, nearly: full pages, and vacuum in time for index-only work and freezing.
    fillfactor = 100,
    autovacuum_vacuum_insert_scale_factor = 0.05
);
-- Retention deletes by age; a block range index costs an insert next to nothing.
create index notification_t_process_ts on notification_t using brin (process_ts);
comment on table notification_t is
    'The latest outcome of each record, for people and user interfaces; never read to decide anything. Add an index on event_id if you look rows up by it.';
comment on column notification_t.host_id is 'Tenant.';
comment on column notification_t.status is
    'APPLIED, REJECTED, DUPLICATE, STALE, SKIPPED, DEAD_LETTERED, PARKED or DISCARDED; only DEAD_LETTERED and PARKED change later.';
comment on column notification_t.reason is 'Reason code behind the status.';
comment on column notification_t.error is
    'What was wrong, made of codes and names only; never holds a value of the event.';
comment on column notification_t.event_json is 'The event, when notification.event_json asks for it.';
comment on column notification_t.event_ts is 'When the event happened, by its producer''s clock.';
comment on column notification_t.process_ts is 'When the outcome was written.';
comment on column notification_t.read_ts is 'For user interfaces to mark a row as seen.';

create table dead_letter_t (
    stream integer not null,
    sink smallint not null,
    "offset" bigint not null,
    record_ts bigint,
    timestamp_type text not null,
    key bytea,
    value bytea,
    headers jsonb not null,
    aggregate_type text collate "C",
    aggregate_id text collate "C",
    aggregate_version bigint,
    event_id text,
    event_type text,
    disposition text not null,
    reason text not null,
    sqlstate text,
    constraint_name text,
    attempts integer not null default 1,
    redrives integer not null default 0,
    first_failed_at timestamptz not null default now(),
    failed_at timestamptz not null default now(),
    claimed_at timestamptz,
    published_at timestamptz,
    resolved_at timestamptz,
    resolution text,
    constraint dead_letter_t_pk primary key (stream, "offset"),
    constraint dead_letter_t_headers check (jsonb_typeof(headers) = 'array'),
    constraint dead_letter_t_timestamp check (
        timestamp_type in ('NoTimestampType', 'CreateTime', 'LogAppendTime')),
    constraint dead_letter_t_disposition check (disposition in ('poison', 'parked')),
    constraint dead_letter_t_resolved check ((resolved_at is null) = (resolution is null))
);
create index dead_letter_t_unpublished on dead_letter_t (sink, stream, "offset")
    where published_at is null;
create index dead_letter_t_unresolved
    on dead_letter_t (sink, aggregate_type, aggregate_id, stream, "offset")
    where resolved_at is null;
comment on table dead_letter_t is
    'Records that could not be applied, and those that wait behind one of them, byte for byte. The dead letter topic is published from here.';
comment on column dead_letter_t.record_ts is
    'The record''s timestamp in milliseconds since 1970, exactly as Kafka had it; null where the topic has none.';
comment on column dead_letter_t.timestamp_type is
    'Who set it: CreateTime, LogAppendTime, or NoTimestampType.';
comment on column dead_letter_t.key is 'The record''s key; null and empty are different.';
comment on column dead_letter_t.value is 'The record''s value; null and empty are different.';
comment on column dead_letter_t.headers is
    'The record''s headers in their order: an array of [name, value], the value in base64 or null. Names may repeat.';
comment on column dead_letter_t.disposition is
    'poison: cannot be applied itself; parked: waits behind a poisoned event of its aggregate.';
comment on column dead_letter_t.reason is 'Reason code.';
comment on column dead_letter_t.attempts is 'Failed attempts before it was given up.';
comment on column dead_letter_t.redrives is 'How often it was sent through again by an operator.';
comment on column dead_letter_t.claimed_at is 'When a publisher began to send it to the topic.';
comment on column dead_letter_t.published_at is 'When the topic had it, acknowledged by all replicas.';
comment on column dead_letter_t.resolved_at is 'When a re-drive applied it or an operator discarded it.';
comment on column dead_letter_t.resolution is 'How it was resolved.';

-- The same for people: names instead of surrogate keys.

create view stream as
select k.name as sink, s.topic, s.partition, s.log_epoch, s.next_offset, s.owner, s.owner_epoch,
       s.anchor_offset, s.anchor_time, s.anchor_crc, s.progressed_at, s.stream
from stream_t s
join sink_t k using (sink);
comment on view stream is 'stream_t with the sink''s name.';

create view aggregate as
select k.name as sink, a.aggregate_type, a.aggregate_id, a.version, a.state, a.deleted,
       a.event_id, s.topic, s.partition, s.log_epoch, a."offset", a.gap,
       a.parked_at, a.parked_reason, a.updated_at
from aggregate_t a
join sink_t k using (sink)
left join stream_t s using (stream);
comment on view aggregate is 'aggregate_t with sink, topic and partition by name.';

create view notification as
select k.name as sink, s.topic, s.partition, s.log_epoch, n."offset", n.status, n.reason,
       n.sqlstate, n.error, n.event_id, n.event_type, n.aggregate_type, n.aggregate_id,
       n.aggregate_version, n.host_id, n.user_id, n.nonce, n.transaction_id, n.correlation_id,
       n.causation_id, n.event_json, n.event_ts, n.process_ts, n.redrives, n.read_ts
from notification_t n
left join stream_t s using (stream)
left join sink_t k using (sink);
comment on view notification is 'notification_t with sink, topic and partition by name.';

create view dead_letter as
select k.name as sink, s.topic, s.partition, s.log_epoch, d."offset", d.disposition, d.reason,
       d.sqlstate, d.constraint_name, d.aggregate_type, d.aggregate_id, d.aggregate_version,
       d.event_id, d.event_type, d.key, d.value, d.headers, d.record_ts, d.timestamp_type,
       d.attempts, d.redrives, d.first_failed_at, d.failed_at, d.claimed_at, d.published_at,
       d.resolved_at, d.resolution
from dead_letter_t d
join sink_t k using (sink)
left join stream_t s using (stream);
comment on view dead_letter is 'dead_letter_t with sink, topic and partition by name.';

insert into schema_t (version, min_binary) values (1, 1);
