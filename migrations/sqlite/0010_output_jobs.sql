-- Outputs on their way, and the files that came of them. Whoever writes to either table holds the row
-- of the output before.

-- What is to be done for an output: one thing at a time.
--   task        render: made here; fetch: taken from `url`, once; ask: the core makes it, and has until
--               `visible_at` to say where
--   visible_at  when it is due; with an owner, when their lease ends
--   epoch       the lease token: grows with every lease, and where another task takes its place
--   tries       how often it was begun
create table output_job (
    workspace  text    not null,
    output     text    not null,
    task       text    not null,
    url        text,
    visible_at integer not null,
    owner      blob,
    epoch      integer not null,
    tries      integer not null,
    constraint output_job_pk primary key (workspace, output),
    constraint output_job_url check ((task = 'fetch') = (url is not null))
) strict, without rowid;

create index output_job_due on output_job (visible_at);

-- The file of an output that is kept here.
--   key             where it is kept
--   edition_version the version of the edition that it shows; null: the core made it
--   url             where it was taken from; null: it was made here
create table output_file (
    workspace       text    not null,
    output          text    not null,
    key             text    not null,
    size            integer not null,
    sha256          text    not null,
    generated_at    integer not null,
    edition_version integer,
    url             text,
    constraint output_file_pk primary key (workspace, output)
) strict, without rowid;

create unique index output_file_key on output_file (key);
