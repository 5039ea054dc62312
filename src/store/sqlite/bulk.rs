//! Statements that carry many rows.
//!
//! A statement costs a hand-over to the connection's thread and back, which is as much as writing a
//! dozen rows, so rows are sent together, as a list of bound values. (Measured at a third of the cost
//! of `json_each` over hex ids, and a sixth of it with 10 kB bodies.)
//!
//! Lists come in few sizes, so that their texts are made once and their statements stay prepared;
//! a list is filled up with rows of nulls, **which the statement must pass over**.
//!
//! Values are bound in the order in which they stand, without numbers: a numbered parameter is
//! looked up by its name, one after the other. What is the same for all rows stands behind the list
//! and is bound once.

use std::sync::{Arc, OnceLock};

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

use super::error::store_error;
use crate::store::Result;

/// How many rows a list has. The largest is a full batch; a larger one would hold more memory for
/// as long as it is prepared and is hardly faster.
const SIZES: [usize; 7] = [1, 4, 16, 64, 128, 256, 512];

/// A statement whose values are being bound.
pub(super) type Statement = Query<'static, Sqlite, SqliteArguments>;

/// A statement that carries a list of rows.
pub(super) struct Bulk {
    before: &'static str,
    row: &'static str,
    after: &'static str,
    texts: [OnceLock<Arc<str>>; SIZES.len()],
}

impl Bulk {
    /// The text before the list, that of one row, and the text behind the list.
    pub(super) const fn new(before: &'static str, row: &'static str, after: &'static str) -> Self {
        Self {
            before,
            row,
            after,
            texts: [const { OnceLock::new() }; SIZES.len()],
        }
    }

    /// The statements that carry these rows. `bind_row` binds what is written in the list's row,
    /// `bind_rest` what stands behind the list.
    pub(super) fn statements<'r, T>(
        &'static self,
        mut rows: &'r [T],
        mut bind_row: impl FnMut(Statement, &'r T) -> Statement,
        bind_rest: impl Fn(Statement) -> Statement,
    ) -> impl Iterator<Item = Statement> {
        let columns = self.row.matches('?').count();
        std::iter::from_fn(move || {
            let whole = rows.len();
            let fitting = SIZES.iter().position(|size| *size >= whole);
            let number = fitting.unwrap_or(SIZES.len() - 1);
            let size = *SIZES.get(number)?;
            let (part, rest) = rows.split_at(size.min(whole));
            if part.is_empty() {
                return None;
            }
            rows = rest;
            let text = self.texts.get(number)?.get_or_init(|| self.text(size));
            let mut statement = sqlx::query(AssertSqlSafe(Arc::clone(text)));
            statement = part.iter().fold(statement, &mut bind_row);
            for _ in 0..(size - part.len()) * columns {
                statement = statement.bind(None::<i64>);
            }
            Some(bind_rest(statement))
        })
    }

    fn text(&self, size: usize) -> Arc<str> {
        let rows = vec![self.row; size].join(", ");
        [self.before, &rows, self.after].concat().into()
    }
}

/// Runs them; answers how many rows they changed.
pub(super) async fn execute(
    transaction: &mut SqliteConnection,
    statements: impl Iterator<Item = Statement>,
) -> Result<usize> {
    let mut changed = 0;
    for statement in statements {
        let done = statement
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        changed += usize::try_from(done.rows_affected()).unwrap_or(usize::MAX);
    }
    Ok(changed)
}

/// Runs them; answers what they found.
pub(super) async fn fetch(
    transaction: &mut SqliteConnection,
    statements: impl Iterator<Item = Statement>,
) -> Result<Vec<SqliteRow>> {
    let mut found = Vec::new();
    for statement in statements {
        let rows = statement.fetch_all(&mut *transaction).await;
        found.append(&mut rows.map_err(store_error)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use sqlx::{Arguments, Execute};

    use super::*;

    #[test]
    fn all_rows_are_carried_in_order_in_lists_of_few_sizes_that_are_filled_up() {
        static LIST: Bulk = Bulk::new("values ", "(?, ?)", " limit ?");
        for length in [0, 1, 3, 255, 256, 500, 512, 513, 5_000] {
            let rows: Vec<i64> = (0..length).collect();
            let bound = RefCell::new(Vec::new());
            let bind_row = |statement: Statement, row: &i64| {
                bound.borrow_mut().push(*row);
                statement.bind(*row).bind(*row)
            };
            let mut carried = 0;
            for mut statement in LIST.statements(&rows, bind_row, |rest| rest.bind(7)) {
                let values = statement.take_arguments().unwrap().unwrap().len();
                let places = statement.sql().as_str().matches('?').count();
                assert_eq!(values, places);
                assert!(SIZES.contains(&((places - 1) / 2)));
                carried += (places - 1) / 2;
            }
            assert_eq!(*bound.borrow(), rows);
            assert!((rows.len()..=rows.len() * 4).contains(&carried));
        }
    }

    #[test]
    fn the_text_is_laid_out_as_it_is_given() {
        let list = Bulk::new("select * from (values ", "(?, 1)", ") where a = ?");
        assert_eq!(
            &*list.text(2),
            "select * from (values (?, 1), (?, 1)) where a = ?"
        );
    }
}
