//! The two forms of a log line. Both write straight into the line's buffer, and both escape
//! control characters, so that no value can forge a line.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::Clock;

/// One JSON object a line: `timestamp`, `level`, `target`, `message`, the fields, `process.pid`.
pub(super) struct JsonLine {
    pub(super) clock: Clock,
    pub(super) pid: u32,
}

/// Time, level, message, fields: for people.
pub(super) struct PrettyLine {
    pub(super) clock: Clock,
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        writer.write_str("{\"timestamp\":\"")?;
        write_time(&mut writer, &self.clock)?;
        write!(writer, "\",\"level\":\"{}\",\"target\":\"", meta.level())?;
        write!(JsonText(&mut writer), "{}", meta.target())?;
        writer.write_char('"')?;
        let mut fields = JsonFields {
            writer: &mut writer,
            result: Ok(()),
        };
        event.record(&mut fields);
        fields.result?;
        writeln!(writer, ",\"process.pid\":{}}}", self.pid)
    }
}

impl<S, N> FormatEvent<S, N> for PrettyLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let colours = writer.has_ansi_escapes();
        let paint = |code: &'static str| if colours { code } else { "" };
        let level = *event.metadata().level();
        write!(writer, "{}", paint("\x1b[2m"))?;
        write_time(&mut writer, &self.clock)?;
        let (dim, plain) = (paint("\x1b[2m"), paint("\x1b[0m"));
        write!(writer, "{plain} {}{level:>5}{plain}", paint(colour(level)))?;
        let mut fields = PrettyFields {
            writer: &mut writer,
            dim,
            plain,
            result: Ok(()),
        };
        event.record(&mut fields);
        fields.result?;
        writeln!(writer)
    }
}

const fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// RFC 3339 in UTC, with milliseconds.
fn write_time(writer: &mut Writer<'_>, clock: &Clock) -> fmt::Result {
    let now = clock.now();
    match jiff::Timestamp::from_millisecond(now.0) {
        Ok(time) => write!(writer, "{time:.3}"),
        Err(_) => write!(writer, "{now}"),
    }
}

/// Writes each field as `,"name":value`.
struct JsonFields<'a, 'w> {
    writer: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl JsonFields<'_, '_> {
    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>, text: bool) {
        let mut write = || {
            self.writer.write_str(",\"")?;
            self.writer.write_str(field.name())?;
            self.writer.write_str(if text { "\":\"" } else { "\":" })?;
            if text {
                JsonText(self.writer).write_fmt(value)?;
                self.writer.write_char('"')
            } else {
                self.writer.write_fmt(value)
            }
        };
        if self.result.is_ok() {
            self.result = write();
        }
    }
}

impl Visit for JsonFields<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        self.field(field, format_args!("{value}"), !value.is_finite());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, format_args!("{value}"), false);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, format_args!("{value}"), false);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, format_args!("{value}"), false);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, format_args!("{value}"), true);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.field(field, format_args!("{value}"), true);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, format_args!("{value:?}"), true);
    }
}

/// Writes the message as it is and each other field as ` name=value`.
struct PrettyFields<'a, 'w> {
    writer: &'a mut Writer<'w>,
    dim: &'static str,
    plain: &'static str,
    result: fmt::Result,
}

impl PrettyFields<'_, '_> {
    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut write = || {
            self.writer.write_char(' ')?;
            if field.name() != "message" {
                write!(self.writer, "{}{}={}", self.dim, field.name(), self.plain)?;
            }
            VisibleText(self.writer).write_fmt(value)
        };
        if self.result.is_ok() {
            self.result = write();
        }
    }
}

impl Visit for PrettyFields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.field(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, format_args!("{value:?}"));
    }
}

/// Escapes what passes through it for a JSON string (RFC 8259, section 7).
struct JsonText<'a, 'w>(&'a mut Writer<'w>);

impl Write for JsonText<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| matches!(c, '"' | '\\' | '\0'..='\x1f')) {
            self.0.write_str(&rest[..at])?;
            match rest.as_bytes()[at] {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                b'\n' => self.0.write_str("\\n")?,
                control => write!(self.0, "\\u{control:04x}")?,
            }
            rest = &rest[at + 1..];
        }
        self.0.write_str(rest)
    }
}

/// Escapes control characters: a terminal obeys them.
struct VisibleText<'a, 'w>(&'a mut Writer<'w>);

impl Write for VisibleText<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let visible = part.trim_end_matches(char::is_control);
            self.0.write_str(visible)?;
            for control in part[visible.len()..].chars() {
                write!(self.0, "{}", control.escape_default())?;
            }
        }
        Ok(())
    }
}
