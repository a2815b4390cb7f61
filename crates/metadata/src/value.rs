//! Statements and rows that SQLite and PostgreSQL have in common: text, integers of 64 bits, bytes, and `$1` for the
//! first parameter.

use helios_types::Digest;
use sqlx::{
    AssertSqlSafe, ColumnIndex, Database, Decode, Encode, Executor, IntoArguments, Row as _, Type, TypeInfo,
    ValueRef,
};

/// A value of a parameter or a column.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Bytes(Vec<u8>),
    Text(String),
    Integer(i64),
}

impl Value {
    /// The number, if it is one.
    pub(super) fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            _ => None,
        }
    }
}

impl From<&Digest> for Value {
    fn from(digest: &Digest) -> Self {
        Self::Bytes(digest.as_bytes().to_vec())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

/// Sizes and times, which are below 2^63 wherever files are real.
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A row of an answer.
#[derive(Debug)]
pub(super) struct Row(Vec<Value>);

impl Row {
    pub(super) fn bytes(&self, column: usize) -> Result<&[u8], String> {
        match self.0.get(column) {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            other => Err(format!("column {column} holds {other:?} instead of bytes")),
        }
    }

    pub(super) fn text(&self, column: usize) -> Result<&str, String> {
        match self.0.get(column) {
            Some(Value::Text(text)) => Ok(text),
            other => Err(format!("column {column} holds {other:?} instead of text")),
        }
    }

    pub(super) fn integer(&self, column: usize) -> Result<i64, String> {
        match self.0.get(column) {
            Some(Value::Integer(integer)) => Ok(*integer),
            other => Err(format!("column {column} holds {other:?} instead of a number")),
        }
    }

    pub(super) fn number(&self, column: usize) -> Result<u64, String> {
        let integer = self.integer(column)?;
        u64::try_from(integer).map_err(|_| format!("column {column} holds {integer}"))
    }

    pub(super) fn hash(&self, column: usize) -> Result<[u8; 32], String> {
        let bytes = self.bytes(column)?;
        bytes.try_into().map_err(|_| format!("column {column} holds {} bytes instead of 32", bytes.len()))
    }

    pub(super) fn digest(&self, column: usize) -> Result<Digest, String> {
        self.hash(column).map(Digest::from_bytes)
    }
}

/// Asks one statement of a database that knows the three types.
pub(super) async fn fetch<DB>(
    connection: &mut DB::Connection,
    statement: &str,
    values: &[Value],
) -> Result<Vec<Row>, sqlx::Error>
where
    DB: Database,
    DB::Arguments: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'v> Vec<u8>: Encode<'v, DB> + Decode<'v, DB> + Type<DB>,
    for<'v> String: Encode<'v, DB> + Decode<'v, DB> + Type<DB>,
    for<'v> i64: Encode<'v, DB> + Decode<'v, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    let mut query = sqlx::query::<DB>(AssertSqlSafe(statement));
    for value in values {
        query = match value {
            Value::Bytes(bytes) => query.bind(bytes.clone()),
            Value::Text(text) => query.bind(text.clone()),
            Value::Integer(integer) => query.bind(*integer),
        };
    }
    query.fetch_all(connection).await?.iter().map(row::<DB>).collect()
}

fn row<DB>(row: &DB::Row) -> Result<Row, sqlx::Error>
where
    DB: Database,
    for<'v> Vec<u8>: Decode<'v, DB> + Type<DB>,
    for<'v> String: Decode<'v, DB> + Type<DB>,
    for<'v> i64: Decode<'v, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    let value = |column: usize| {
        let kind = row.try_get_raw(column)?.type_info().name().to_owned();
        match kind.as_str() {
            "TEXT" => row.try_get(column).map(Value::Text),
            "BLOB" | "BYTEA" => row.try_get(column).map(Value::Bytes),
            _ => row.try_get(column).map(Value::Integer),
        }
    };
    (0..row.len()).map(value).collect::<Result<_, _>>().map(Row)
}
