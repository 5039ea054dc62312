-- Edition data, as the core's snapshots and webhook events tell it and as clients read it.
--
-- Each thing of the core's has a `version` that its snapshots raise: one that is not greater than
-- what is here is old. What the core deleted stays as a row with `deleted_at`, so that a late
-- snapshot does not bring it back. Texts of JSON are kept as they came. Ids, names and words are
-- compared by their bytes, which is also the order of lists: the same in both databases.

-- Workspaces, each with its name and settings.
create table workspace (
    id text collate "C" not null,
    version bigint not null,
    name text not null,
    -- A JSON object.
    settings text not null,
    deleted_at timestamptz(3),
    constraint workspace_pk primary key (id)
);

-- Who belongs to a workspace: replaced as a whole by its snapshot.
create table member (
    workspace text collate "C" not null,
    id text collate "C" not null,
    name text,
    email text,
    role text,
    constraint member_pk primary key (workspace, id)
);

-- A project that only an event or an edition has told of has no version and no name.
alter table project add column version bigint;
alter table project add column description text;
alter table project add column deleted_at timestamptz(3);

-- Report structures. A deleted one has lost its content.
create table blueprint (
    workspace text collate "C" not null,
    id text collate "C" not null,
    version bigint not null,
    deleted_at timestamptz(3),
    project text collate "C",
    name text,
    -- Sections and offered outputs, as JSON of the program's own.
    definition text,
    constraint blueprint_pk primary key (workspace, id),
    constraint blueprint_whole check (
        deleted_at is not null
        or (project is not null and name is not null and definition is not null)
    )
);

create index blueprint_of_project on blueprint (workspace, project, id) where deleted_at is null;

-- When edition data last changed. Each transaction that changes an edition sets it forward, by a
-- millisecond at least, and gives the editions this time. The row is the last thing that a transaction
-- waits for, behind its turn for the feed, and is held to its end: so the order of these times is that of
-- the commits, and who has seen all up to one time misses nothing later.
create table edition_clock (
    only_row boolean not null default true,
    last timestamptz(3) not null,
    constraint edition_clock_pk primary key (only_row),
    constraint edition_clock_one_row check (only_row)
);

insert into edition_clock (last) values (to_timestamp(0));

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
    workspace text collate "C" not null,
    id text collate "C" not null,
    version bigint,
    revision bigint not null,
    changed_at timestamptz(3) not null,
    deleted_at timestamptz(3),
    project text collate "C",
    blueprint text collate "C",
    name text,
    period text collate "C",
    assignee_id text collate "C",
    assignee_name text,
    created_at timestamptz(3),
    stated_status text collate "C",
    stated_at timestamptz(3),
    told_status text collate "C",
    told_at timestamptz(3),
    told_by text collate "C",
    status text collate "C" generated always as (
        case when stated_at is null or told_at > stated_at then told_status else stated_status end
    ) stored,
    status_changed_at timestamptz(3) generated always as (
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
);

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
    workspace text collate "C" not null,
    edition text collate "C" not null,
    name text collate "C" not null,
    ord integer not null,
    content text,
    digest bytea,
    constraint edition_section_pk primary key (workspace, edition, name)
);

-- The rows of repeating sections. `ord` grows down the section and has gaps.
create table edition_row (
    workspace text collate "C" not null,
    edition text collate "C" not null,
    section text collate "C" not null,
    ord bigint not null,
    id text collate "C" not null,
    -- A JSON object.
    content text not null,
    constraint edition_row_pk primary key (workspace, edition, section, ord)
);

create unique index edition_row_id on edition_row (workspace, edition, section, id);

-- What editions are presented in. As for editions, a version that is null hides it, the status is
-- the later one of what was stated and told, and `told_at` is the latest `output.generated`. Its
-- project, and whether it is seen, is its edition's.
create table output (
    workspace text collate "C" not null,
    id text collate "C" not null,
    version bigint,
    revision bigint not null,
    deleted_at timestamptz(3),
    edition text collate "C",
    name text,
    format text,
    stated_status text collate "C",
    stated_at timestamptz(3),
    size bigint,
    sha256 text,
    generated_at timestamptz(3),
    failure text,
    told_at timestamptz(3),
    told_by text collate "C",
    status text collate "C" generated always as (
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
);

create index output_of_edition on output (workspace, edition, id) where edition is not null;
