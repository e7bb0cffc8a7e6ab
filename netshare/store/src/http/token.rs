//! The secret that a server knows us by.

use imager_units::{Error, ErrorKind, Result};
use std::fmt;

const BYTES_MAX: usize = 512;

/// A server's token. It is never shown: not by `Debug`, in no message, in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token as the server printed it; white space around it is dropped.
    ///
    /// # Errors
    /// `Invalid` when it cannot be one: empty, too long, or with characters that no token has.
    pub fn new(text: &str) -> Result<Self> {
        let token = text.trim();
        let sound = (1..=BYTES_MAX).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
        if sound {
            return Ok(Self(token.to_owned()));
        }
        let what = "what is given as the token is none: one word of printable characters is expected";
        Err(Error::new(ErrorKind::Invalid, what))
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn a_token_is_a_word_and_is_never_shown() {
        let token = Token::new(" hh_abc\n").unwrap();
        assert_eq!((token.secret(), format!("{token:?}").contains("abc")), ("hh_abc", false));
        for text in ["", " ", "a b", "a\nb", "ü", &"a".repeat(513)] {
            let error = Token::new(text).unwrap_err();
            assert!(text.trim().is_empty() || !error.to_string().contains(text));
        }
    }
}
