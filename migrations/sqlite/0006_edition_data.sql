-- Edition data, as the core's snapshots and webhook events tell it and as clients read it.
--
-- Each thing of the core's has a `version` that its snapshots raise: one that is not greater than
-- what is here is old. What the core deleted stays as a row with `deleted_at`, so that a late
-- snapshot does not bring it back. Texts of JSON are kept as they came.

-- Workspaces, each with its name and settings.
create table workspace (
    id         text    not null,
    version    integer not null,
    name       text    not null,
    -- A JSON object.
    settings   text    not null,
    deleted_at integer,
    constraint workspace_pk primary key (id)
) strict, without rowid;

-- Who belongs to a workspace: replaced as a whole by its snapshot.
create table member (
    workspace text not null,
    id        text not null,
    name      text,
    email     text,
    role      text,
    constraint member_pk primary key (workspace, id)
) strict, without rowid;

-- A project that only an event or an edition has told of has no version and no name.
alter table project add column version integer;
alter table project add column description text;
alter table project add column deleted_at integer;

-- Report structures. A deleted one has lost its content.
create table blueprint (
    workspace  text    not null,
    id         text    not null,
    version    integer not null,
    deleted_at integer,
    project    text,
    name       text,
    -- Sections and offered outputs, as JSON of the program's own.
    definition text,
    constraint blueprint_pk primary key (workspace, id),
    constraint blueprint_whole check (
        deleted_at is not null
        or (project is not null and name is not null and definition is not null)
    )
) strict, without rowid;

create index blueprint_of_project on blueprint (workspace, project, id) where deleted_at is null;

-- When edition data last changed. Each transaction that changes an edition sets it forward, by a
-- millisecond at least, and gives the editions this time: so their order is that of the commits, and
-- who has seen all up to one time misses nothing later.
create table edition_clock (
    only_row integer not null default 1,
    last     integer not null,
    constraint edition_clock_pk primary key (only_row),
    constraint edition_clock_one_row check (only_row = 1)
) strict;

insert into edition_clock (last) values (0);

-- The heads of editions.
--   version        of the data; null: no snapshot came yet, only events told of it, and no reader
--                  sees it
--   revision       grows with every change of the row, also with those that raise no version
--   changed_at     by the clock above
--   stated_*       the status by the newest snapshot
--   told_*         the status by the latest webhook event; told_by is that event's own id
-- Both are kept, and the later one counts (the snapshot's where they are of one time): so any order
-- in which snapshots and events arrive ends the same.
create table edition (
    workspace         text    not null,
    id                text    not null,
    version           integer,
    revision          integer not null,
    changed_at        integer not null,
    deleted_at        integer,
    project           text,
    blueprint         text,
    name              text,
    period            text,
    assignee_id       text,
    assignee_name     text,
    created_at        integer,
    stated_status     text,
    stated_at         integer,
    told_status       text,
    told_at           integer,
    told_by           text,
    status            text    generated always as (
        case when stated_at is null or told_at > stated_at then told_status else stated_status end
    ) stored,
    status_changed_at integer generated always as (
        case when stated_at is null or told_at > stated_at then told_at else stated_at end
    ) stored,
    constraint edition_pk primary key (workspace, id),
    constraint edition_whole check (
        version is null
        or deleted_at is not null
        or (
            project is not null and blueprint is not null and name is not null
            and created_at is not null and stated_status is not null and stated_at is not null
        )
    ),
    constraint edition_told check (
        (told_status is null) = (told_at is null) and (told_at is null) = (told_by is null)
    )
) strict, without rowid;

-- Lists go in the order of changes, by one filter or by none.
create index edition_changes on edition (workspace, changed_at, id)
    where version is not null and deleted_at is null;
create index edition_of_project on edition (workspace, project, changed_at, id)
    where version is not null and deleted_at is null;
create index edition_of_blueprint on edition (workspace, blueprint, changed_at, id)
    where version is not null and deleted_at is null;
create index edition_in_status on edition (workspace, status, changed_at, id)
    where version is not null and deleted_at is null;
create index edition_of_period on edition (workspace, period, changed_at, id)
    where version is not null and deleted_at is null;

-- The sections of an edition that were ever filled.
--   ord       their order in the edition
--   content   the values of a single section, a JSON object; null: it is repeating
--   digest    sha256 over the rows as the snapshot had them; null: not known, since they were
--             changed by others
create table edition_section (
    workspace text    not null,
    edition   text    not null,
    name      text    not null,
    ord       integer not null,
    content   text,
    digest    blob,
    constraint edition_section_pk primary key (workspace, edition, name)
) strict, without rowid;

-- The rows of repeating sections. `ord` grows down the section and has gaps.
create table edition_row (
    workspace text    not null,
    edition   text    not null,
    section   text    not null,
    ord       integer not null,
    id        text    not null,
    -- A JSON object.
    content   text    not null,
    constraint edition_row_pk primary key (workspace, edition, section, ord)
) strict, without rowid;

create unique index edition_row_id on edition_row (workspace, edition, section, id);

-- What editions are presented in. As for editions, a version that is null hides it, the status is
-- the later one of what was stated and told, and `told_at` is the latest `output.generated`. Its
-- project, and whether it is seen, is its edition's.
create table output (
    workspace    text    not null,
    id           text    not null,
    version      integer,
    revision     integer not null,
    deleted_at   integer,
    edition      text,
    name         text,
    format       text,
    stated_status text,
    stated_at    integer,
    size         integer,
    sha256       text,
    generated_at integer,
    failure      text,
    told_at      integer,
    told_by      text,
    status       text    generated always as (
        case when stated_at is null or told_at > stated_at then 'generated' else stated_status end
    ) stored,
    constraint output_pk primary key (workspace, id),
    constraint output_whole check (
        version is null
        or deleted_at is not null
        or (
            edition is not null and name is not null and format is not null
            and stated_status is not null and stated_at is not null
        )
    ),
    constraint output_file check (
        (size is null) = (sha256 is null) and (sha256 is null) = (generated_at is null)
    ),
    constraint output_told check ((told_at is null) = (told_by is null))
) strict, without rowid;

create index output_of_edition on output (workspace, edition, id) where edition is not null;
