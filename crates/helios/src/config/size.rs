//! Sizes as people write them: `512MiB`, `2g`, `1073741824`.

/// Bytes of `text`. Units are powers of 1024 with or without the `i`, in any case; without a unit, bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let wrong =
        || format!("`{text}` is not a size: expected a number and KiB, MiB, GiB or TiB, such as `512MiB`");
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    Ok((number * f64::from(1_u32 << (shift / 2)) * f64::from(1_u32 << (shift - shift / 2))) as u64)
}

/// `bytes` for people: three digits and a binary unit.
pub(crate) fn show_size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if unit == 0 || value >= 100.0 { 0 } else { 1 };
    format!("{value:.decimals$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::{parse_size, show_size};

    #[test]
    fn sizes_parse_in_the_forms_people_use() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("1k", 1024),
            ("512MiB", 512 << 20),
            ("2 GB", 2 << 30),
            ("1.5g", 3 << 29),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "-1", "1 parsec", "1.2.3"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_show_three_digits() {
        assert_eq!((show_size(17), show_size(98_362_432)), ("17 B".to_owned(), "93.8 MiB".to_owned()));
    }
}
