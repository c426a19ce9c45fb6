//! The fields of a request as command line flags, made from the table of fields.

use std::sync::LazyLock;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, builder::ValueParser, error::Error};
use latentd::generation::{Field, Kind, ModelCard, WorkKind};

/// Fields that are not flags here, each with the reason.
const OTHERS: [(&str, &str); 13] = [
    ("prompt", "is the argument"),
    ("n", "is -n"),
    ("image", "names a file"),
    ("mask", "names a file"),
    ("output", "is --output, whose extension names the format, and --quality"),
    ("controls", "have pictures of their own"),
    ("previews", "are sent while a client waits"),
    ("on_disconnect", "is for clients that wait"),
    ("priority", "orders a queue"),
    ("start_timeout_s", "is for a queue"),
    ("run_timeout_s", "is for requests without a waiting client"),
    ("webhook", "is sent by a server"),
    ("metadata", "is stored by a server"),
];

/// The flags of a command line, as pairs of a field's name and its text, as in a form.
#[derive(Debug)]
pub(super) struct Flags(Vec<(String, String)>);

impl Flags {
    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().cloned()
    }

    /// The text of a flag that was given.
    pub fn value_of(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(flag, _)| flag == name).map(|(_, text)| text.as_str())
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(flags().map(|(field, long)| flag(field, long)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = flags().filter_map(|(field, _)| Some((field.name, matches.get_one::<String>(field.name)?)));
        Ok(Self(given.map(|(name, text)| (name.to_owned(), text.clone())).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The fields that are flags, with the names of the flags. A field that several kinds of work have is one flag.
fn flags() -> impl Iterator<Item = (&'static Field, &'static str)> {
    static FLAGS: LazyLock<Vec<(&Field, String)>> = LazyLock::new(|| {
        let mut flags: Vec<(&Field, String)> = Vec::new();
        for field in WorkKind::ALL.iter().flat_map(|kind| kind.fields()) {
            let is_other = OTHERS.iter().any(|(name, _)| *name == field.name);
            if !is_other && flags.iter().all(|(known, _)| known.name != field.name) {
                flags.push((field, field.name.replace('_', "-")));
            }
        }
        flags
    });
    FLAGS.iter().map(|(field, long)| (*field, long.as_str()))
}

fn flag(field: &'static Field, long: &'static str) -> Arg {
    let (value, parser) = match field.kind {
        Kind::Integer(_) => ("INTEGER", ValueParser::new(integer)),
        Kind::Number(_) | Kind::Seconds(_) => ("NUMBER", ValueParser::new(finite)),
        Kind::Flag => ("true|false", ValueParser::new(text)),
        Kind::Size => ("WIDTHxHEIGHT", ValueParser::new(text)),
        Kind::Text(_) | Kind::Word(_) | Kind::Scheduler => ("TEXT", ValueParser::new(text)),
        Kind::Classes => ("NUMBER|NAME|[…]", ValueParser::new(text)),
        _ => ("JSON", ValueParser::new(text)),
    };
    let flag = Arg::new(field.name).long(long).help(field.doc).value_name(value).value_parser(parser);
    // Otherwise a negative number would be parsed as another flag, and the error would not say that the value is out of
    // range.
    let flag = flag.allow_negative_numbers(matches!(field.kind, Kind::Integer(_) | Kind::Number(_) | Kind::Seconds(_)));
    // The fields that this field needs with the chosen model are checked with the request.
    match (field.needs)(&ModelCard::default()) {
        Some(needed) => flag.requires(needed),
        None => flag,
    }
}

fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn integer(text: &str) -> Result<String, String> {
    let integer = text.parse::<u64>();
    integer.map(|_| text.to_owned()).map_err(|_| "it must be a whole number, such as 8, and not negative".to_owned())
}

/// Parses a finite number, as JSON requires.
fn finite(text: &str) -> Result<String, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    // Writes the number in JSON's form: `.5` and `+1` are accepted on the command line.
    number.map(|number| number.to_string()).ok_or_else(|| "it must be a finite number, such as 7.5".to_owned())
}
