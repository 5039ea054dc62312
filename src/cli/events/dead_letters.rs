//! `forge-dispatch events dead-letters`: messages that could not be used, looked at in the broker's
//! queue, sent to where they came from once more, or dropped.

use std::io::{IsTerminal, Write};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::super::output::{fields, or_dash, plain, table};
use super::super::{CliError, Context};
use crate::broker::{AmqpError, DeadLetter, DeadLetters, Requeued};
use crate::domain::subscription::FieldError;

mod view;

use view::{Letter, LetterInFull};

/// What to do with dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List the oldest ones.
    List {
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST)))]
        limit: u16,
    },
    /// Show one, with its headers and its body.
    Show {
        /// Its id, or its number in the list.
        #[arg(value_name = "ID|NUMBER")]
        which: String,
    },
    /// Send one, or all, to the queue that it came by.
    Requeue(Which),
    /// Delete one, or all, for good.
    Drop {
        /// Which.
        #[command(flatten)]
        which: Which,

        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// The most that are in hand at once, and so the most that can be looked at.
const MOST: u16 = 1_000;

/// One or all.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Its id, or its number in the list.
    #[arg(value_name = "ID|NUMBER")]
    one: Option<String>,

    /// All that are there now.
    #[arg(long)]
    all: bool,
}

impl Which {
    fn is(&self, letter: &DeadLetter) -> bool {
        self.one.as_ref().is_none_or(|one| is(letter, one))
    }

    fn is_number(&self) -> bool {
        let one = self.one.as_ref();
        one.is_some_and(|one| one.parse::<u16>().is_ok())
    }
}

/// Numbers are short, ids are not.
fn is(letter: &DeadLetter, one: &str) -> bool {
    letter.id == one || one.parse() == Ok(letter.position)
}

/// Those that are there, from the oldest on.
#[derive(Serialize)]
struct Listed {
    data: Vec<Letter>,
    /// How many there are in all.
    waiting: usize,
}

/// What was done to some.
#[derive(Serialize)]
struct Done {
    requeued: usize,
    dropped: usize,
    /// Which those were: nothing else will tell of them again.
    letters: Vec<Letter>,
    /// Those that could not be sent back, and why.
    kept: Vec<Kept>,
}

#[derive(Serialize)]
struct Kept {
    id: String,
    reason: String,
}

/// Runs it.
pub(super) async fn run(command: DeadLettersCommand, context: &Context) -> Result<(), CliError> {
    match command {
        DeadLettersCommand::List { limit } => list(limit, context).await,
        DeadLettersCommand::Show { which } => show(&which, context).await,
        DeadLettersCommand::Requeue(which) => requeue(&which, context).await,
        DeadLettersCommand::Drop { which, yes } => {
            if !yes {
                confirm(&which)?;
            }
            discard(&which, context).await
        }
    }
}

async fn open(context: &Context) -> Result<DeadLetters, CliError> {
    let amqp = &context.config.amqp;
    let url = amqp.url.as_ref().ok_or_else(|| {
        FieldError::new(
            "amqp.url",
            "is not set: dead letters are kept by the broker",
        )
    })?;
    let opened = DeadLetters::open(url, &amqp.dead_letter_queue, MOST).await;
    Ok(opened.context("reading the dead letters")?)
}

async fn list(limit: u16, context: &Context) -> Result<(), CliError> {
    let mut letters = open(context).await?;
    let mut listed = Listed {
        data: Vec::new(),
        waiting: letters.waiting(),
    };
    while listed.data.len() < usize::from(limit)
        && let Some(letter) = letters.next().await.map_err(broken)?
    {
        listed.data.push(Letter::of(&letter));
        letters.keep(letter).await.map_err(broken)?;
    }
    letters.close().await.map_err(broken)?;
    context.output.print(&listed, |listed| {
        let Listed { data, waiting } = listed;
        if data.is_empty() {
            return "no dead letters".to_owned();
        }
        let rows = data.iter().map(Letter::row);
        let table = table(
            &[
                "#",
                "ID",
                "SINCE",
                "QUEUE",
                "ROUTING KEY",
                "BYTES",
                "REASON",
            ],
            rows,
        );
        if data.len() < *waiting {
            return format!("{table}\n{} of {waiting}: --limit shows more", data.len());
        }
        table
    })
}

async fn show(which: &str, context: &Context) -> Result<(), CliError> {
    let mut letters = open(context).await?;
    let mut found = None;
    while found.is_none()
        && let Some(letter) = letters.next().await.map_err(broken)?
    {
        found = is(&letter, which).then(|| LetterInFull::of(&letter));
        letters.keep(letter).await.map_err(broken)?;
    }
    letters.close().await.map_err(broken)?;
    let found = found.ok_or_else(|| not_found(which, context))?;
    context.output.print(&found, |letter| {
        let pairs = letter.fields();
        format!("{}\n{}", fields(&pairs), letter.lines())
    })
}

async fn requeue(which: &Which, context: &Context) -> Result<(), CliError> {
    let mut letters = open(context).await?;
    let mut done = Done::nothing();
    while let Some(letter) = letters.next().await.map_err(broken)? {
        if !which.is(&letter) {
            letters.keep(letter).await.map_err(broken)?;
            continue;
        }
        let seen = Letter::of(&letter);
        match letters.requeue(letter).await.map_err(broken)? {
            Requeued::Done => {
                done.requeued += 1;
                done.letters.push(seen);
            }
            Requeued::Kept(reason) => done.kept.push(Kept {
                id: seen.id,
                reason,
            }),
        }
        if !which.all {
            break;
        }
    }
    letters.close().await.map_err(broken)?;
    done.tell(which, context)
}

async fn discard(which: &Which, context: &Context) -> Result<(), CliError> {
    let mut letters = open(context).await?;
    if which.is_number() && letters.waiting() > usize::from(MOST) {
        letters.close().await.map_err(broken)?;
        let why =
            format!("must be an id: of more than {MOST} letters each look can move the numbers");
        return Err(FieldError::new("ID|NUMBER", why).into());
    }
    let mut done = Done::nothing();
    while let Some(letter) = letters.next().await.map_err(broken)? {
        if !which.is(&letter) {
            letters.keep(letter).await.map_err(broken)?;
            continue;
        }
        let seen = Letter::of(&letter);
        letters.discard(letter).await.map_err(broken)?;
        done.dropped += 1;
        done.letters.push(seen);
        if !which.all {
            break;
        }
    }
    letters.close().await.map_err(broken)?;
    done.tell(which, context)
}

impl Done {
    fn nothing() -> Self {
        Self {
            requeued: 0,
            dropped: 0,
            letters: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Prints it; an error where one was not there, or could not go back.
    fn tell(&self, which: &Which, context: &Context) -> Result<(), CliError> {
        let touched = self.requeued + self.dropped + self.kept.len();
        if let Some(one) = &which.one
            && touched == 0
        {
            return Err(not_found(one, context));
        }
        context.output.print(self, |done| {
            let did = match (done.dropped, done.requeued) {
                (0, requeued) => format!("{requeued} requeued"),
                (dropped, _) => format!("{dropped} dropped"),
            };
            let letters = done.letters.iter();
            let did = letters.fold(did, |text, letter| text + "\n" + &letter.line());
            let kept = done.kept.iter();
            let kept = kept.map(|Kept { id, reason }| format!("\n{id} stays: {}", plain(reason)));
            kept.fold(did, |text, line| text + &line)
        })?;
        if self.kept.is_empty() {
            return Ok(());
        }
        Err(CliError::Failure(anyhow::anyhow!(
            "{} could not be requeued",
            self.kept.len()
        )))
    }
}

/// Asks at a terminal; elsewhere nobody can answer.
fn confirm(which: &Which) -> Result<(), CliError> {
    let what = match &which.one {
        Some(one) => format!("dead letter {}", plain(one)),
        None => "all dead letters".to_owned(),
    };
    let unsaid = FieldError::new("--yes", format!("is needed to drop {what} for good"));
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() {
        return Err(unsaid.into());
    }
    write!(stderr, "drop {what} for good? [y/N] ").context("asking")?;
    let mut answer = String::new();
    stdin.read_line(&mut answer).context("reading the answer")?;
    if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(unsaid.into())
}

/// What was not given back when the connection broke is given back by the broker.
fn broken(error: AmqpError) -> CliError {
    let told = anyhow::Error::new(error).context("reading the dead letters (none is lost)");
    CliError::Failure(told)
}

fn not_found(which: &str, context: &Context) -> CliError {
    CliError::NoDeadLetter {
        which: plain(which),
        queue: context.config.amqp.dead_letter_queue.clone(),
    }
}
