//! A static file server that speaks just enough of the hub's protocol, and the plainest client of one: the origin that is
//! pulled from, and the limit of what any client could get from it.
//!
//! Files leave by `sendfile` (what the standard library's copy from a file to a socket is), one thread a connection.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, scope};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::scratch::Stop;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: u64 = 64 << 10;
/// Bytes that the plain client reads at a time.
const READ_BYTES: usize = 256 << 10;
/// How soon idle connections see that the server has ended.
const IDLE: Duration = Duration::from_millis(200);

/// What one path leads to.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    File(PathBuf, u64),
    Bytes(Vec<u8>),
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File(_, length) => *length,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// The server; ends when dropped.
#[derive(Debug)]
pub(super) struct Origin {
    /// `HOST:PORT`.
    pub(super) address: String,
    ended: Stop,
    accepting: Option<JoinHandle<()>>,
}

impl Origin {
    /// Serves `resources` by their paths on a free port of the loopback.
    pub(super) fn start(resources: BTreeMap<String, Resource>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let address = listener.local_addr()?.to_string();
        let (resources, ended) = (Arc::new(resources), Stop::default());
        let seen = ended.clone();
        let accept = move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (resources, ended) = (Arc::clone(&resources), seen.clone());
                let serve = move || serve(&connection, &resources, &ended);
                // A client that goes away ends its connection, and no more.
                let serving = Builder::new().name("bench-connection".to_owned()).spawn(move || drop(serve()));
                if seen.is_raised() || serving.is_err() {
                    return;
                }
            }
        };
        let accepting = Builder::new().name("bench-origin".to_owned()).spawn(accept)?;
        Ok(Self { address, ended, accepting: Some(accepting) })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.ended.raise();
        // One more connection, so that the thread that accepts looks up.
        drop(TcpStream::connect(&self.address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Answers one request after the other.
fn serve(connection: &TcpStream, resources: &BTreeMap<String, Resource>, ended: &Stop) -> io::Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(IDLE))?;
    let mut reader = BufReader::new(connection);
    while !ended.is_raised() {
        match reader.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => return Err(error),
        }
        let head = head(&mut reader)?;
        answer(connection, resources, &head)?;
        if header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return Ok(());
        }
    }
    Ok(())
}

/// The lines of a request or an answer up to the empty one.
fn head(reader: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut limited = reader.take(HEAD_BYTES_MAX);
    loop {
        let mut line = String::new();
        if limited.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => return Ok(lines),
            line => lines.push(line.to_owned()),
        }
    }
}

fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    let value = |line: &'a String| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    };
    head.iter().find_map(value)
}

fn answer(
    mut connection: &TcpStream,
    resources: &BTreeMap<String, Resource>,
    head: &[String],
) -> io::Result<()> {
    let mut words = head.first().map_or("", String::as_str).split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let Some(resource) = resources.get(path) else {
        return connection.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    };
    let size = resource.content.len();
    let range = header(head, "range").and_then(|range| parse_range(range, size));
    let mut text = match &range {
        Some(Range { start, end }) => {
            format!("HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {start}-{}/{size}\r\n", end - 1)
        }
        None => "HTTP/1.1 200 OK\r\n".to_owned(),
    };
    let range = range.unwrap_or(0..size);
    text.push_str(&format!("content-length: {}\r\naccept-ranges: bytes\r\n", range.end - range.start));
    for (name, value) in &resource.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    connection.write_all(text.as_bytes())?;
    if method == "GET" { send(connection, &resource.content, range) } else { Ok(()) }
}

fn send(mut connection: &TcpStream, content: &Content, range: Range<u64>) -> io::Result<()> {
    match content {
        Content::Bytes(bytes) => connection.write_all(&bytes[range.start as usize..range.end as usize]),
        Content::File(path, _) => {
            let mut file = OpenOptions::new().read(true).open(path)?;
            file.seek(SeekFrom::Start(range.start))?;
            io::copy(&mut file.take(range.end - range.start), &mut connection).map(drop)
        }
    }
}

/// One range within the file, as clients of this bench ask for it.
fn parse_range(text: &str, size: u64) -> Option<Range<u64>> {
    let (start, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let start = start.parse().ok()?;
    let end = last.parse::<u64>().map_or(size, |last| last.saturating_add(1).min(size));
    (start < end).then_some(start..end)
}

/// Reads files in `parts` ranges at a time and does nothing with the bytes; returns how many there were.
pub(super) fn read_plainly(address: &str, files: &[(String, u64)], parts: u64) -> anyhow::Result<u64> {
    let mut total = 0;
    for (path, size) in files {
        let part = size.div_ceil(parts).max(1);
        let ranges = (0..*size).step_by(part as usize).map(|start| start..(start + part).min(*size));
        let read = |range: Range<u64>| move || get(address, path, range);
        let bytes = scope(|scope| {
            let reads: Vec<_> = ranges.map(|range| scope.spawn(read(range))).collect();
            let join = |read: std::thread::ScopedJoinHandle<'_, anyhow::Result<u64>>| {
                read.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            reads.into_iter().map(join).sum::<anyhow::Result<u64>>()
        })?;
        ensure!(bytes == *size, "{path} came with {bytes} bytes instead of {size}");
        total += bytes;
    }
    Ok(total)
}

fn get(address: &str, path: &str, range: Range<u64>) -> anyhow::Result<u64> {
    let mut connection = TcpStream::connect(address)?;
    let Range { start, end } = range;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nrange: bytes={start}-{}\r\n\r\n", end - 1);
    connection.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(&connection);
    head(&mut reader)?;
    let mut came = reader.buffer().len() as u64;
    let mut buffer = vec![0; READ_BYTES];
    while came < end - start {
        match connection.read(&mut buffer)? {
            0 => break,
            length => came += length as u64,
        }
    }
    Ok(came)
}

/// A small document, whole.
pub(super) fn get_small(address: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut connection = TcpStream::connect(address)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(connection);
    let head = head(&mut reader)?;
    let status = head.first().map_or("", String::as_str);
    ensure!(status.contains(" 200 "), "{path} was answered with {status}");
    let mut body = Vec::new();
    reader.read_to_end(&mut body)?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Content, Origin, Resource, get_small, parse_range, read_plainly};

    #[test]
    fn files_and_ranges_of_them_come_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (path, bytes) = (folder.path().join("a"), vec![7; 300_000]);
        helios_storage::write_atomic(&path, &bytes).unwrap();
        let resource = |content| Resource { headers: vec![("etag", "\"x\"".to_owned())], content };
        let origin = Origin::start(BTreeMap::from([
            ("/a".to_owned(), resource(Content::File(path, 300_000))),
            ("/b".to_owned(), resource(Content::Bytes(b"small".to_vec()))),
        ]));
        let origin = origin.unwrap();
        assert_eq!(get_small(&origin.address, "/b").unwrap(), b"small");
        assert_eq!(get_small(&origin.address, "/a?x=y").unwrap(), bytes);
        get_small(&origin.address, "/c").unwrap_err();
        assert_eq!(read_plainly(&origin.address, &[("/a".to_owned(), 300_000)], 8).unwrap(), 300_000);
        assert_eq!(parse_range("bytes=2-4", 4), Some(2..4));
        assert_eq!(parse_range("bytes=4-", 4), None);
    }
}
