//! Signals of Linux by name and number.

/// Names by number, 1 to 31.
pub(crate) const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

const REAL_TIME_MIN: u32 = 34;
const REAL_TIME_MAX: u32 = 64;

/// The number of `TERM`, `SIGTERM`, `RTMIN+3`, `RTMAX-10` or `15`; `None` when there is no such signal.
pub fn number(text: &str) -> Option<u32> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    if let Some(index) = NAMES.iter().position(|signal| *signal == name) {
        return u32::try_from(index + 1).ok();
    }
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(REAL_TIME_MIN),
        (Some(rest), _) => {
            let plus: u32 = rest.strip_prefix('+')?.parse().ok()?;
            REAL_TIME_MIN.checked_add(plus)
        }
        (None, Some("")) => Some(REAL_TIME_MAX),
        (None, Some(rest)) => {
            let minus: u32 = rest.strip_prefix('-')?.parse().ok()?;
            REAL_TIME_MAX
                .checked_sub(minus)
                .filter(|number| *number >= REAL_TIME_MIN)
        }
        (None, None) => name.parse().ok(),
    };
    number.filter(|number| (1..=REAL_TIME_MAX).contains(number))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn names_and_numbers() {
        for (text, expected) in [
            ("TERM", Some(15)),
            ("SIGPWR", Some(30)),
            ("9", Some(9)),
            ("RTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-10", Some(54)),
            ("RTMAX-31", None),
            ("RTMIN+31", None),
            ("0", None),
            ("65", None),
            ("term", None),
            ("", None),
            ("RTMIN-1", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
