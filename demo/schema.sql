-- The demo's tables, such as a user would have. pgsluice keeps its own tables in a separate schema.

create table if not exists public.customer (
    id         text primary key,
    name       text not null,
    -- The demo sends one address that this check refuses.
    email      text not null check (email like '%_@_%' and email not like '% %'),
    address    text,
    version    bigint not null,
    changed_at timestamptz not null
);

-- No foreign key to customer: the two topics progress independently.
create table if not exists public.orders (
    id          text primary key,
    customer_id text not null,
    total       numeric(12, 2) not null check (total >= 0),
    status      text not null check (status in ('placed', 'paid', 'shipped')),
    version     bigint not null,
    changed_at  timestamptz not null
);
