//! SQLite: the suite, and files that are damaged or from the future.

use std::fs;

use helios_metadata::{Metadata, MetadataError, SqlMetadata};

use crate::conformance::conforms;
use crate::made::{STORE, manifest, name, put, set_tag};

#[tokio::test]
async fn sqlite_conforms() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut files = 0;
    conforms(async || {
        files += 1;
        SqlMetadata::sqlite(&dir.path().join(format!("{files}.db"))).await.expect("a database")
    })
    .await;
}

#[tokio::test]
async fn what_sqlite_acknowledged_is_there_without_a_clean_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a.db");
    let database = SqlMetadata::sqlite(&file).await.expect("a database");
    let one = manifest("one", &[1]);
    database.commit(&[put(&one), set_tag("a", &[one.0])]).await.expect("committed");
    // The files as a killed process leaves them: the change is in the log alone.
    let copy = dir.path().join("b.db");
    fs::copy(&file, &copy).expect("a copy");
    fs::copy(dir.path().join("a.db-wal"), dir.path().join("b.db-wal")).expect("a copy of the log");
    let database = SqlMetadata::sqlite(&copy).await.expect("recovered");
    assert_eq!(database.current(&name("a")).await.expect("an answer").expect("there").digest, one.0);
}

#[tokio::test]
async fn a_damaged_file_is_a_clear_error_with_a_way_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a.db");
    fs::write(&file, [0x5a; 8192]).expect("rubbish");
    let error = SqlMetadata::sqlite(&file).await.expect_err("damaged");
    assert!(matches!(error, MetadataError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("helios registry rebuild"), "{error}");
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a.db");
    SqlMetadata::sqlite(&file).await.expect("a database").close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("a connection");
    crate::postgres::note_a_newer_migration(&pool).await;
    pool.close().await;
    let error = SqlMetadata::sqlite(&file).await.expect_err("newer");
    assert!(matches!(error, MetadataError::Newer { version: 99, .. }), "{error:?}");
}

#[tokio::test]
async fn a_database_of_the_first_release_is_brought_up_to_date() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("a connection");
    let first = include_str!("../../src/migrations/sqlite/1_metadata.sql");
    crate::postgres::note_migration(&pool, 1, "metadata", first).await;
    let (one, two) = (manifest("one", &[1]), manifest("two", &[2]));
    for made in [&one, &two] {
        let insert = "INSERT INTO manifests (digest, body, facts, size) VALUES ($1, $2, 'null', 3)";
        let insert = sqlx::query(insert).bind(made.0.as_bytes().to_vec()).bind(made.1.to_bytes());
        insert.execute(&pool).await.expect("a manifest");
    }
    let store = "INSERT INTO records (kind, key, value) VALUES ('store', $1, '{}')";
    sqlx::query(store).bind(STORE).execute(&pool).await.expect("a store");
    pool.close().await;

    let database = SqlMetadata::sqlite(&file).await.expect("brought up to date");
    database.commit(&[set_tag("m", &[one.0])]).await.expect("tagged");
    assert_eq!(database.untagged(STORE).await.expect("an answer"), [two.0]);
    assert_eq!(database.untagged("another").await.expect("an answer"), []);
}

#[tokio::test]
async fn a_backup_is_whole_while_the_database_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let database = SqlMetadata::sqlite(&dir.path().join("a.db")).await.expect("a database");
    let made: Vec<_> = (0..50).map(|number| manifest(&number.to_string(), &[number])).collect();
    let copy = dir.path().join("copy.db");
    let writes = async {
        for made in &made {
            database
                .commit(&[put(made), set_tag(&format!("t{}", made.0.hex()), &[made.0])])
                .await
                .expect("ok");
        }
    };
    let (_, backup) = tokio::join!(writes, database.backup(&copy));
    backup.expect("a backup");
    database.backup(&copy).await.expect_err("a file that is there is not overwritten");
    let copy = SqlMetadata::sqlite(&copy).await.expect("the copy opens");
    let counts = copy.counts().await.expect("counts");
    assert_eq!(counts.manifests, counts.tags, "half of a commit was copied");
}
