//! The two macros the other files share.

/// Asserts at compile time the size of a structure and the offsets of its fields, in bytes.
macro_rules! assert_layout {
    ($type:ty, size = $size:expr $(, $field:ident @ $offset:expr)* $(,)?) => {
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}

/// Defines an open set of codes: an integer newtype with a constant and a name for each known value, so that the two
/// cannot differ, and so that a value nobody has heard of is still representable.
macro_rules! codes {
    (
        $(#[$meta:meta])*
        pub struct $type:ident($repr:ty);
        $($(#[$doc:meta])* $konst:ident = $value:literal, $name:literal;)*
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $type(pub $repr);

        impl $type {
            $(
                #[doc = concat!($name, ".")]
                $(#[$doc])*
                pub const $konst: Self = Self($value);
            )*

            /// Every value that has a name, in the order of the specification's table.
            pub const KNOWN: &'static [Self] = &[$(Self::$konst),*];

            /// The specification's name for this value, if it has one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($name),)*
                    _ => None,
                }
            }

            /// The raw value; what a bit field stores.
            #[must_use]
            pub const fn into_bits(self) -> $repr {
                self.0
            }

            /// The code of a raw value, known or not.
            #[must_use]
            pub const fn from_bits(bits: $repr) -> Self {
                Self(bits)
            }
        }

        impl core::fmt::Debug for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{name} ({:02X}h)", self.0),
                    None => write!(f, "{:02X}h", self.0),
                }
            }
        }

        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Debug::fmt(self, f)
            }
        }
    };
}

/// The derives of every structure that is on the wire.
macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident $body:tt)*) => {
        $(
            $(#[$meta])*
            #[derive(
                Clone, Copy, Debug, PartialEq, Eq,
                zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
            )]
            #[repr(C)]
            pub struct $name $body

            impl Default for $name {
                /// All bytes zero.
                fn default() -> Self {
                    zerocopy::FromZeros::new_zeroed()
                }
            }
        )*
    };
}
