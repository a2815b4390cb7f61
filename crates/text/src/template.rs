//! Chat templates: Jinja source that comes with a model, rendered with Hugging Face's settings.
//!
//! A template is hostile input. Its source has a length limit, parsing a depth limit, rendering a limit on steps and
//! memory (minijinja's fuel) and one on the text it makes. It sees the messages and nothing else: no files, no clock,
//! no includes.

use std::io::{self, Write};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, State, Value, context};

use crate::TextError;
use crate::deep_stack::on_deep_stack;
use crate::python_json::to_json;

/// Longest template source that is read.
pub const TEMPLATE_BYTES_MAX: usize = 64 * 1024;

/// Most operators that may join texts. minijinja folds constants while parsing, outside the limit on steps and in time
/// quadratic in a chain's length: 32,000 joins took 41 s.
const JOINS_MAX: usize = 1_000;

/// Longest text that a template may make.
pub const RENDERED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Steps of one rendering; each step also pays for at most 64 bytes. A conversation of a thousand messages of 1 KiB
/// takes about 60,000.
const FUEL: u64 = 500_000;

/// The name under which the one template of an environment is kept.
const NAME: &str = "chat_template";

/// One message of a conversation, as templates see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, or another role that the template knows.
    pub role: String,
    /// The text.
    pub content: String,
}

/// A parsed chat template. Clones share one copy.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Parses a template; `bos` and `eos` are the texts of those tokens, empty where the model has none.
    ///
    /// # Errors
    /// [`TextError::InvalidTemplate`] for a syntax error, and for a source over [`TEMPLATE_BYTES_MAX`] or with too
    /// many joins.
    pub fn parse(source: &str, bos: &str, eos: &str) -> Result<Self, TextError> {
        check_source(source)?;
        let environment = on_deep_stack(|| {
            let mut environment = new_environment()?;
            environment.add_template_owned(NAME, source.to_owned()).map_err(|error| invalid(&error))?;
            Ok(environment)
        })?;
        let (bos, eos) = (bos.to_owned(), eos.to_owned());
        Ok(Self { environment: Arc::new(environment), source: source.into(), bos, eos })
    }

    /// Renders `messages`; with `add_generation_prompt` the text ends where the assistant's answer begins.
    ///
    /// # Errors
    /// [`TextError::MessagesRefused`] when the template raises an exception, [`TextError::TemplateLimit`] when it goes
    /// over a limit, [`TextError::TemplateFailed`] otherwise.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, TextError> {
        on_deep_stack(|| self.render_here(messages, add_generation_prompt))
    }

    /// The template's source.
    pub fn source(&self) -> &str {
        &self.source
    }

    fn render_here(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        let template = self.environment.get_template(NAME).map_err(|error| invalid(&error))?;
        let as_value = |message: &ChatMessage| {
            context! { role => message.role.as_str(), content => message.content.as_str() }
        };
        let values = context! {
            messages => messages.iter().map(as_value).collect::<Value>(),
            add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
        };
        let mut output = LimitedText::default();
        match template.render_captured_to(values, &mut output) {
            Ok(_) => output.into_string(),
            Err(_) if output.is_over => Err(over_length()),
            Err(error) => Err(failure(&error)),
        }
    }
}

fn check_source(source: &str) -> Result<(), TextError> {
    let joins = source.bytes().filter(|byte| matches!(byte, b'~' | b'+')).count();
    let reason = if source.len() > TEMPLATE_BYTES_MAX {
        format!("source of {} bytes is over the limit of {TEMPLATE_BYTES_MAX}", source.len())
    } else if joins > JOINS_MAX {
        format!("{joins} joins (`~`, `+`) are over the limit of {JOINS_MAX}")
    } else {
        return Ok(());
    };
    Err(TextError::InvalidTemplate { reason })
}

fn new_environment() -> Result<Environment<'static>, TextError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| invalid(&error))?);
    environment.set_unknown_method_callback(python_method);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", raise_exception);
    Ok(environment)
}

/// Python's methods of strings, lists and maps; without `str.format`, whose widths are not charged to the fuel.
fn python_method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if method == "format" {
        return Err(Error::from(ErrorKind::UnknownMethod));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// Carried as the source of an error, so that a template's own exception can be told from a fault.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

fn invalid(error: &Error) -> TextError {
    TextError::InvalidTemplate { reason: error.to_string() }
}

fn over_length() -> TextError {
    TextError::TemplateLimit { limit: format!("{RENDERED_BYTES_MAX} bytes of text") }
}

fn failure(error: &Error) -> TextError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return TextError::MessagesRefused { message: message.clone() };
        }
        cause = current.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => TextError::TemplateLimit { limit: format!("{FUEL} steps") },
        _ => TextError::TemplateFailed { reason: error.to_string() },
    }
}

/// Text that refuses to grow beyond [`RENDERED_BYTES_MAX`].
#[derive(Default)]
struct LimitedText {
    bytes: Vec<u8>,
    is_over: bool,
}

impl LimitedText {
    fn into_string(self) -> Result<String, TextError> {
        String::from_utf8(self.bytes).map_err(|error| TextError::TemplateFailed { reason: error.to_string() })
    }
}

impl Write for LimitedText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > RENDERED_BYTES_MAX {
            self.is_over = true;
            return Err(io::Error::other("the text is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ChatMessage, ChatTemplate, TEMPLATE_BYTES_MAX};
    use crate::TextError;

    fn render(source: &str) -> Result<String, TextError> {
        let messages = [ChatMessage { role: "user".to_owned(), content: "<hi> & 'é'".to_owned() }];
        ChatTemplate::parse(source, "<s>", "</s>")?.render(&messages, true)
    }

    #[test]
    fn settings_are_those_of_hugging_face() {
        let source = "  {% if add_generation_prompt %}\n{{ bos_token }}{{ messages[0]['content'] }}\n  {% endif %}\nx\n";
        assert_eq!(render(source).expect("rendered"), "<s><hi> & 'é'\nx");
        assert_eq!(
            render("{{ {'a': [1, none], 'b': '<é>'} | tojson }}").expect("rendered"),
            "{\"a\": [1, null], \"b\": \"<é>\"}"
        );
        assert_eq!(render("{{ ' a,b '.strip().split(',')[-1] }}").expect("rendered"), "b");
        assert_eq!(render("{{ 'no date' if strftime_now is not defined }}").expect("rendered"), "no date");
    }

    #[test]
    fn a_template_may_refuse() {
        let error = render("{{ raise_exception('roles must alternate') }}").expect_err("refused");
        assert_eq!(error.to_string(), "the model's chat template refused the messages: roles must alternate");
    }

    #[test]
    fn operator_chains_do_not_overflow_the_stack() {
        for (head, link) in
            [("a", ".b"), ("1", "-1"), ("1", "|abs"), ("f", "()"), ("f", "[0]"), ("1", " and 1")]
        {
            let chain = link.repeat((TEMPLATE_BYTES_MAX - 16) / link.len());
            let _ends = render(&format!("{{{{ {head}{chain} }}}}"));
        }
        let _ends = render(&format!("{{{{ {}1 }}}}", "-".repeat(TEMPLATE_BYTES_MAX - 16)));
        let _ends = render(&format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(5_000)));
    }

    #[test]
    fn nested_values_do_not_overflow_the_stack() {
        let nest = "{% set ns = namespace(x=[1], y=[1]) %}{% for a in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}";
        for end in ["", "{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x == ns.y }}"] {
            let _ends = render(&format!("{nest}{end}"));
            let _ends = render(&format!("{}{end}", nest.replace("90000", "40000")));
        }
    }

    #[test]
    fn time_and_memory_are_bounded() {
        for source in [
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            "{{ 'x' * 100000000000 }}",
            "{% set ns = namespace(x='xx') %}{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
            "{% set x = 'x' * 1000000 %}{% for a in range(1000) %}{{ x }}{% endfor %}",
            "{{ '%1000000000d' | format(1) }}",
            "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
        ] {
            assert!(matches!(render(source), Err(TextError::TemplateLimit { .. })), "{source}");
        }
        assert!(matches!(render("{{ '{:1000000000}'.format(1) }}"), Err(TextError::TemplateFailed { .. })));
        let chain = format!("{{{{ 1{} }}}}", "~1".repeat(30_000));
        assert!(matches!(render(&chain), Err(TextError::InvalidTemplate { .. })));
        let long = "x".repeat(TEMPLATE_BYTES_MAX + 1);
        assert!(matches!(render(&long), Err(TextError::InvalidTemplate { .. })));
    }
}
