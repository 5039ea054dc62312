-- Who may ask for what, and who did what.
--
-- (What 0001 says of `event_key` holds no longer: a key is 4 bytes of order and 12 of the hash. A
-- migration that was applied once is not touched, not even in its comments.)

-- Keys of the API. A key is never deleted: what the audit log names can be looked up for good.
-- There is no table of requests counted: one process serves this file, and counts in memory.
create table api_key (
    id           blob    not null,
    workspace    text    not null,
    name         text    not null,
    -- sha256 of the key's text, which is kept nowhere.
    digest       blob    not null,
    -- JSON, read whole and never searched.
    scopes       text    not null,
    -- JSON; null is the whole workspace.
    project_ids  text,
    -- Its own limits; null is the deployment's.
    per_minute   integer,
    per_hour     integer,
    concurrent   integer,
    created_by   text    not null,
    created_at   integer not null,
    expires_at   integer,
    revoked_at   integer,
    last_used_at integer,
    constraint api_key_pk primary key (id),
    constraint api_key_digest check (length(digest) = 32)
) strict;

create index api_key_of_workspace on api_key (workspace, id);

-- Administrative acts and uses of keys. Never changed once it is written.
create table audit_log (
    workspace  text    not null,
    id         blob    not null,
    -- The time that is in the id, for those who look with SQL. Searches by time go by the id.
    at         integer not null,
    actor      text    not null,
    action     text    not null,
    object     text,
    address    text,
    request_id text,
    -- Of a use: how a key was used.
    method     text,
    route      text,
    status     integer,
    -- Of an act: JSON, without secrets.
    before     text,
    after      text,
    constraint audit_log_pk primary key (workspace, id),
    constraint audit_log_request check (
        (method is null) = (route is null) and (method is null) = (status is null)
    )
) strict, without rowid;

-- What one key did is looked for among the uses of all.
create index audit_log_of_actor on audit_log (workspace, actor, id);
