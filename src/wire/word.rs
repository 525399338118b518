//! The four-letter words of operators (`client-protocol.md` 2.1).

macro_rules! words {
    ($($variant:ident = $text:literal;)*) => {
        /// A word that a connection may start with instead of a handshake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "operations.md 2.3 says what each prints")]
        pub enum Word { $($variant,)* }

        impl Word {
            /// Reads the first four bytes of a connection.
            #[must_use]
            pub fn parse(bytes: [u8; 4]) -> Option<Self> {
                $(if bytes == *$text { return Some(Self::$variant); })*
                None
            }

            /// The word itself.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => std::str::from_utf8($text).expect("words are ASCII"),)*
                }
            }

            /// Every word.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }
    };
}

words! {
    Conf = b"conf";
    Cons = b"cons";
    Crst = b"crst";
    Dirs = b"dirs";
    Dump = b"dump";
    Envi = b"envi";
    Gtmk = b"gtmk";
    Hash = b"hash";
    Isro = b"isro";
    Mntr = b"mntr";
    Ruok = b"ruok";
    Srst = b"srst";
    Srvr = b"srvr";
    Stat = b"stat";
    Stmk = b"stmk";
    Wchc = b"wchc";
    Wchp = b"wchp";
    Wchs = b"wchs";
}
