//! The `tojson` filter as chat templates expect it: Python's `json.dumps` with `ensure_ascii=False`, where Jinja's own
//! (and minijinja's) would escape for HTML and leave out the spaces.

use std::io::{self, Write};

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Widest indentation that is honoured.
const INDENT_MAX: usize = 16;

/// `value | tojson(indent=n)`. Keys of maps are in their sorted order.
pub(crate) fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _ignored: Option<bool> = options.get("ensure_ascii")?;
    let _ignored: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let text = match indent {
        Some(width) => {
            write(value, PrettyFormatter::with_indent(" ".repeat(width.min(INDENT_MAX)).as_bytes()))
        }
        None => write(value, OneLine),
    };
    text.map(Value::from_safe_string)
}

fn write<F: Formatter>(value: &Value, formatter: F) -> Result<String, Error> {
    let failed = |reason: String| Error::new(ErrorKind::BadSerialization, reason);
    let mut bytes = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        .map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| failed(error.to_string()))
}

/// One line with `", "` and `": "` between the parts.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
