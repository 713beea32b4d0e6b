-- Brakes on dead letters and stale events, version 2.

alter table dead_letter_t add column route text collate "C";
comment on column dead_letter_t.route is
    'The route that the event was meant for, as in route[0]; null where none was found.';
-- What the brake counts: a few rows, by the clock of this server.
create index dead_letter_t_failed_at on dead_letter_t (sink, failed_at)
    where disposition = 'poison';

create table brake_t (
    stream integer not null,
    kind text collate "C" not null,
    "offset" bigint not null,
    route text collate "C" not null default '',
    aggregate_type text collate "C",
    aggregate_id text collate "C",
    counted bigint not null,
    tripped_at timestamptz not null default now(),
    constraint brake_t_pk primary key (stream, kind),
    constraint brake_t_kind check (kind in ('dead_letters', 'stale'))
);
comment on table brake_t is
    'The record at which a brake stopped a stream. It holds until that record got through, or an operator accepted it.';
comment on column brake_t.kind is
    'dead_letters: too many aggregates were dead-lettered; stale: too many events were stale.';
comment on column brake_t."offset" is 'The record that tripped the brake.';
comment on column brake_t.route is 'Its route, empty where none was found.';
comment on column brake_t.counted is 'How much the brake had counted when it tripped.';

create table stale_t (
    stream integer not null,
    route text collate "C" not null,
    minute timestamptz not null,
    events bigint not null,
    first_offset bigint not null,
    last_offset bigint not null,
    constraint stale_t_pk primary key (stream, route, minute)
) with (fillfactor = 50);
comment on table stale_t is
    'Stale events of each minute of the last day, counted for their brake.';
comment on column stale_t.first_offset is 'The lowest offset of these events.';
comment on column stale_t.last_offset is 'The highest offset of these events.';

create table acceptance_t (
    sink smallint not null,
    kind text collate "C" not null,
    route text collate "C" not null default '',
    accepted_at timestamptz not null default now(),
    accepted_until timestamptz not null,
    constraint acceptance_t_pk primary key (sink, kind, route),
    constraint acceptance_t_kind check (kind in ('dead_letters', 'stale'))
);
comment on table acceptance_t is
    'What an operator accepted: until then the brake of that kind is not asked.';
comment on column acceptance_t.route is 'The route it is limited to; empty for all.';

create view brake as
select k.name as sink, s.topic, s.partition, s.log_epoch, b."offset", b.kind, b.route, b.counted,
       b.tripped_at
from brake_t b
join stream_t s using (stream)
join sink_t k using (sink);
comment on view brake is 'brake_t with sink, topic and partition by name.';

create or replace view dead_letter as
select k.name as sink, s.topic, s.partition, s.log_epoch, d."offset", d.disposition, d.reason,
       d.sqlstate, d.constraint_name, d.aggregate_type, d.aggregate_id, d.aggregate_version,
       d.event_id, d.event_type, d.key, d.value, d.headers, d.record_ts, d.timestamp_type,
       d.attempts, d.redrives, d.first_failed_at, d.failed_at, d.claimed_at, d.published_at,
       d.resolved_at, d.resolution, d.route
from dead_letter_t d
join sink_t k using (sink)
left join stream_t s using (stream);

update schema_t set version = 2, migrated_at = now();
