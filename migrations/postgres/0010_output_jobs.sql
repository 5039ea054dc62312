-- Outputs on their way, and the files that came of them. Whoever writes to either table holds the row
-- of the output before.

-- What is to be done for an output: one thing at a time.
--   task        render: made here; fetch: taken from `url`, once; ask: the core makes it, and has until
--               `visible_at` to say where
--   visible_at  when it is due; with an owner, when their lease ends
--   epoch       the lease token: grows with every lease, and where another task takes its place
--   tries       how often it was begun
create table output_job (
    workspace text collate "C" not null,
    output text collate "C" not null,
    task text not null,
    url text,
    visible_at timestamptz not null,
    owner uuid,
    epoch bigint not null,
    tries integer not null,
    constraint output_job_pk primary key (workspace, output),
    constraint output_job_url check ((task = 'fetch') = (url is not null))
);

create index output_job_due on output_job (visible_at);

-- The file of an output that is kept here.
--   key             where it is kept
--   edition_version the version of the edition that it shows; null: the core made it
--   url             where it was taken from; null: it was made here
create table output_file (
    workspace text collate "C" not null,
    output text collate "C" not null,
    key text collate "C" not null,
    size bigint not null,
    sha256 text not null,
    generated_at timestamptz(3) not null,
    edition_version bigint,
    url text,
    constraint output_file_pk primary key (workspace, output)
);

create unique index output_file_key on output_file (key);
