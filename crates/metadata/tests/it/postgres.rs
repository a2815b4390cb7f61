//! PostgreSQL: the suite, on a real server, and what only a shared database has: others who write.

use std::path::Path;

use futures::future::join_all;
use helios_metadata::{Metadata, MetadataError, SqlMetadata};
use helios_types::Digest;
use sqlx::migrate::Migrate;

use crate::conformance::conforms;
use crate::made::{STORE, digest, manifest, name, put, put_by, remove_by, set_tag};
use crate::postgres_server::Server;

#[tokio::test]
async fn postgresql_conforms() {
    let server = Server::start();
    let admin = sqlx::PgPool::connect(&server.url("postgres")).await.expect("the server answers");
    let mut databases = 0;
    conforms(async || {
        databases += 1;
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE suite{databases}"));
        sqlx::query(create).execute(&admin).await.expect("a database");
        let url = server.url(&format!("suite{databases}"));
        SqlMetadata::postgres(&url).await.expect("its tables")
    })
    .await;

    let first = SqlMetadata::postgres(&server.url("suite1")).await.expect("a second time");
    let second = SqlMetadata::postgres(&server.url("suite1")).await.expect("beside it");
    let one = manifest("one", &[1]);
    first.commit(&[put(&one), set_tag("shared", &[one.0])]).await.expect("committed");
    assert_eq!(second.models().await.expect("models").len(), 1);
    let error = first.backup(Path::new("/nowhere")).await.expect_err("not by Helios");
    assert!(error.to_string().contains("pg_dump"), "{error}");

    let pool = sqlx::PgPool::connect(&server.url("suite1")).await.expect("a connection");
    note_a_newer_migration(&pool).await;
    let error = SqlMetadata::postgres(&server.url("suite1")).await.expect_err("newer");
    assert!(matches!(error, MetadataError::Newer { version: 99, .. }), "{error:?}");
    let error =
        SqlMetadata::postgres("postgres://u:secret@127.0.0.1:1/none").await.expect_err("nobody there");
    assert!(matches!(error, MetadataError::Unreachable { .. }), "{error:?}");
    assert!(!error.to_string().contains("secret"), "{error}");
}

/// Writes down a migration that no release has yet.
pub(crate) async fn note_a_newer_migration<DB: sqlx::Database>(pool: &sqlx::Pool<DB>)
where
    DB::Connection: Migrate,
{
    note_migration(pool, 99, "newer", "SELECT 1").await;
}

/// Makes a migration and writes it down.
pub(crate) async fn note_migration<DB: sqlx::Database>(
    pool: &sqlx::Pool<DB>,
    version: i64,
    name: &'static str,
    sql: &'static str,
) where
    DB::Connection: Migrate,
{
    use sqlx::SqlSafeStr;
    use sqlx::migrate::{Migration, MigrationType};
    const TABLE: &str = "_sqlx_migrations";
    let migration = Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false);
    let mut connection = pool.acquire().await.expect("a connection");
    connection.ensure_migrations_table(TABLE).await.expect("a table");
    connection.apply(TABLE, &migration).await.expect("noted");
}

/// Several that put and collect manifests of the same blobs at once: every manifest that is there has all its blobs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commits_of_several_registries_follow_each_other() {
    const ROUNDS: u32 = 60;
    let server = Server::start();
    let mut databases = Vec::new();
    for _ in 0..3 {
        databases.push(SqlMetadata::postgres(&server.url("postgres")).await.expect("its tables"));
    }
    let writers = databases.iter().enumerate().map(async |(number, database)| {
        let store = format!("store {number}");
        for round in 0..ROUNDS {
            let made = manifest(&format!("{number} of {round}"), &[1, 2, 3]);
            database.commit(&[put_by(&store, &made)]).await.expect("put");
            let blobs: Vec<Digest> = [1, 2, 3].map(digest).to_vec();
            let known = database.referenced(&blobs).await.expect("an answer");
            assert_eq!(known.len(), 3, "store {number}, round {round}: a blob lost its reference");
            database.commit(&[remove_by(&store, made.0)]).await.expect("given up");
        }
    });
    join_all(writers).await;
    assert_eq!(databases[0].counts().await.expect("counts").blobs, 0, "a blob without a manifest stayed");
}

#[tokio::test]
async fn who_holds_up_the_others_costs_them_an_error_and_no_wait_without_end() {
    let server = Server::start();
    let url = server.url("postgres?options[statement_timeout]=1500ms");
    let database = SqlMetadata::postgres(&url).await.expect("its tables");
    let pool = sqlx::PgPool::connect(&server.url("postgres")).await.expect("a connection");
    let mut stuck = pool.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE tag_entries").execute(&mut *stuck).await.expect("locked");
    let error = database.commit(&[set_tag("m", &[digest(1)])]).await.expect_err("held up");
    assert!(matches!(error, MetadataError::TimedOut { .. }), "{error:?}");
    assert!(error.to_string().contains("hint:"), "{error}");
    stuck.rollback().await.expect("gone");
    database.commit(&[set_tag("m", &[digest(1)])]).await.expect("nobody in the way");
    assert_eq!(database.history(&name("m")).await.expect("a history").len(), 1);
}

#[tokio::test]
async fn a_database_of_the_first_release_is_brought_up_to_date() {
    let server = Server::start();
    let pool = sqlx::PgPool::connect(&server.url("postgres")).await.expect("a connection");
    let first = include_str!("../../src/migrations/postgres/1_metadata.sql");
    note_migration(&pool, 1, "metadata", first).await;
    let (one, two) = (manifest("one", &[1]), manifest("two", &[2]));
    for made in [&one, &two] {
        let insert = "INSERT INTO manifests (digest, body, facts, size) VALUES ($1, $2, 'null', 3)";
        let insert = sqlx::query(insert).bind(made.0.as_bytes().to_vec()).bind(made.1.to_bytes());
        insert.execute(&pool).await.expect("a manifest");
    }
    let store = "INSERT INTO records (kind, key, value) VALUES ('store', $1, '{}')";
    sqlx::query(store).bind(STORE).execute(&pool).await.expect("a store");

    let database = SqlMetadata::postgres(&server.url("postgres")).await.expect("brought up to date");
    database.commit(&[set_tag("m", &[one.0])]).await.expect("tagged");
    assert_eq!(database.untagged(STORE).await.expect("an answer"), [two.0]);
    assert_eq!(database.untagged("another").await.expect("an answer"), []);
}
