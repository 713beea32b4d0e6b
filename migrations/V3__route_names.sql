-- Routes have names, version 3. What earlier versions wrote keeps its text: the place of a route in
-- the configuration, as in route[0]. It counts for no route that has a name.

comment on column dead_letter_t.route is
    'The name of the route that the event was meant for; null where none was found. Rows of version 2 have its place, as in route[0].';
comment on column brake_t.route is
    'The name of its route, empty where none was found. Rows of version 2 have its place, as in route[0].';
comment on column stale_t.route is
    'The name of the route, empty where none was found. Rows of version 2 have its place, as in route[0].';
comment on column acceptance_t.route is
    'The name of the route it is limited to; empty for all. Rows of version 2 have its place, as in route[0], and mean no route any more.';

update schema_t set version = 3, migrated_at = now();
