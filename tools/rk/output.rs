//! What a command prints, and data in and out.

use std::io::{self, BufWriter, IsTerminal, Read, Stdout, Write};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use signal_hook::consts::SIGINT;

use crate::cli::Format;
use crate::failure::{Failure, Outcome};

/// Standard output of one command.
pub(crate) struct Output {
    pub(crate) format: Format,
    /// Set to stop printing, by ctrl-c in the shell.
    pub(crate) interrupted: Option<Arc<AtomicBool>>,
    is_terminal: bool,
    writer: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Self { format, interrupted: None, is_terminal, writer: BufWriter::new(stdout) }
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Outcome {
        if self.interrupted.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(Failure::Exit(128 + SIGINT as u8));
        }
        self.writer.write_all(bytes).map_err(|error| Failure::io("standard output", &error))
    }

    /// One line of text.
    pub(crate) fn line(&mut self, text: &str) -> Outcome {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    /// One JSON value on a line.
    pub(crate) fn json(&mut self, value: &Value) -> Outcome {
        self.line(&value.to_string())
    }

    /// A line with a name or path in it: as it is into a pipe, readable on a terminal.
    pub(crate) fn shown(&mut self, text: &str) -> Outcome {
        if self.is_terminal { self.line(&escaped(text.as_bytes())) } else { self.line(text) }
    }

    /// The text, or the value where JSON is asked for.
    pub(crate) fn either(&mut self, text: &str, value: &Value) -> Outcome {
        if self.format.json { self.json(value) } else { self.shown(text) }
    }

    /// The value where JSON is asked for, else nothing.
    pub(crate) fn json_only(&mut self, value: &Value) -> Outcome {
        if self.format.json { self.json(value) } else { Ok(()) }
    }

    /// A znode's data: as it is into a pipe, readable on a terminal, encoded if asked for.
    pub(crate) fn data(&mut self, data: &[u8], ends_line: bool) -> Outcome {
        if self.format.base64 {
            self.line(&STANDARD.encode(data))
        } else if self.format.hex {
            self.line(&hex(data))
        } else if self.is_terminal {
            self.line(&escaped(data))
        } else if ends_line {
            self.bytes(data)?;
            self.bytes(b"\n")
        } else {
            self.bytes(data)
        }
    }

    /// What was printed so far is seen now.
    pub(crate) fn flush(&mut self) -> Outcome {
        self.writer.flush().map_err(|error| Failure::io("standard output", &error))
    }
}

impl Format {
    /// Puts data into a JSON object: `data` if it is text, else `data_base64`, or as asked for.
    pub(crate) fn data_into(self, object: &mut Map<String, Value>, data: Option<&[u8]>) {
        let (key, value) = match (data, data.map(std::str::from_utf8)) {
            (None, _) => ("data", Value::Null),
            (Some(data), _) if self.hex => ("data_hex", hex(data).into()),
            (Some(_), Some(Ok(text))) if !self.base64 => ("data", text.into()),
            (Some(data), _) => ("data_base64", STANDARD.encode(data).into()),
        };
        object.insert(key.to_owned(), value);
    }

    /// Data from an argument: text, `@file` or `-` for standard input; encoded as asked for.
    pub(crate) fn data_from(self, argument: &str) -> Result<Vec<u8>, Failure> {
        let raw = match argument.strip_prefix('@') {
            Some(file) => {
                std::fs::read(file).map_err(|error| Failure::io(&format!("file {file}"), &error))?
            }
            None if argument == "-" => {
                let mut raw = Vec::new();
                let read = io::stdin().lock().read_to_end(&mut raw);
                read.map_err(|error| Failure::io("standard input", &error))?;
                raw
            }
            None => argument.as_bytes().to_vec(),
        };
        if self.base64 {
            decode_base64(&raw).map_err(Failure::Usage)
        } else if self.hex {
            decode_hex(&raw).map_err(Failure::Usage)
        } else {
            Ok(raw)
        }
    }
}

/// Reads base64; white space is passed over.
pub(crate) fn decode_base64(text: &[u8]) -> Result<Vec<u8>, String> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(text).map_err(|error| format!("the data is not base64: {error}"))
}

/// Reads hexadecimal digits; white space is passed over.
pub(crate) fn decode_hex(text: &[u8]) -> Result<Vec<u8>, String> {
    let digits = text.iter().filter(|byte| !byte.is_ascii_whitespace()).map(|byte| {
        let digit = char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        digit.ok_or_else(|| format!("the data is not hexadecimal: {:?}", char::from(*byte)))
    });
    let digits = digits.collect::<Result<Vec<u8>, String>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err("the data is not hexadecimal: an odd number of digits".to_owned());
    }
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text as it is, everything that could steer a terminal as `\x1b` or `\u{202e}`.
pub(crate) fn escaped(data: &[u8]) -> String {
    let mut text = String::new();
    for chunk in data.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' | '\t' => text.push(c),
                '\\' => text.push_str("\\\\"),
                c if u32::from(c) < 0x20 || c == '\x7f' => {
                    text.push_str(&format!("\\x{:02x}", u32::from(c)));
                }
                c if c.is_control() || is_invisible(c) => text.extend(c.escape_unicode()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Characters that change the order of what is shown, or show nothing.
const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_made_readable_for_terminals() {
        assert_eq!(escaped(b"a\nb\tc"), "a\nb\tc");
        assert_eq!(escaped(b"\x1b[2J\\"), "\\x1b[2J\\\\");
        assert_eq!(escaped(b"\xff\x00ok"), "\\xff\\x00ok");
        assert_eq!(escaped("\u{e9}\u{202e}\u{9b}".as_bytes()), "\u{e9}\\u{202e}\\u{9b}");
    }

    #[test]
    fn data_is_encoded_and_decoded() {
        assert_eq!(decode_hex(b"00 fF\n"), Ok(vec![0, 255]));
        assert!(decode_hex(b"0").is_err());
        assert!(decode_hex(b"xy").is_err());
        assert_eq!(decode_base64(b"aGVs\nbG8=\n").as_deref(), Ok(&b"hello"[..]));
        assert!(decode_base64(b"###").is_err());
        assert_eq!(hex(&[0, 255]), "00ff");
        let mut object = Map::new();
        Format::default().data_into(&mut object, Some(b"\xff"));
        assert_eq!(object["data_base64"], "/w==");
        Format::default().data_into(&mut object, Some(b"text"));
        assert_eq!(object["data"], "text");
        Format::default().data_into(&mut object, None);
        assert_eq!(object["data"], Value::Null);
    }
}
