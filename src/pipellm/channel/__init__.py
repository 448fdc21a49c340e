"""The secure channel's choices; keys and IVs never leave native/crypto/channel.h."""
