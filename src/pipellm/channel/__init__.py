"""The secure channel's choices; its keys and IVs never leave the native core (native/crypto/channel.h)."""
