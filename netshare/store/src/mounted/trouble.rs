//! What can be wrong with a file server's share, from the name to the last byte, and what to do about it.

use imager_units::{ByteLen, ErrorKind};
use std::fmt;
use std::net::SocketAddr;

/// The step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The kernel lets only root mount.
    Privilege,
    /// The kernel lacks the filesystem (its name).
    NoModule(&'static str),
    /// The kernel lacks a cipher that the protocol needs.
    NoCipher,
    /// The kernel is older than 5.2.
    OldKernel,
    /// No address for the server's name; what the system said.
    Name(String),
    /// Nobody answers at the server's port; what the system said.
    Port(SocketAddr, String),
    /// What answers there does not speak the protocol, or broke off; what the kernel said.
    Protocol(String),
    /// No version in common; ours.
    Version(&'static str),
    /// The server does not know this user with this password.
    Password,
    /// A user is named, and there is no password.
    NoPassword,
    /// The password has to be changed first.
    Expired,
    /// There is no share or export of that name.
    NoShare,
    /// The share is there, but not for us.
    NotPermitted,
    /// The folder within the share is not there.
    Folder,
    /// It may be read, not written.
    ReadOnly,
    /// No room is left; what the server says is free.
    Full(ByteLen),
    /// Something else that the kernel said.
    Other(String),
}

impl Trouble {
    /// What that is for whoever must decide what to do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_) | Self::Port(..) | Self::Protocol(_) | Self::Other(_) => ErrorKind::Lost,
            Self::NoModule(_) | Self::NoCipher | Self::OldKernel | Self::Version(_) => ErrorKind::Unsupported,
            Self::Privilege | Self::Password | Self::NoPassword | Self::Expired => ErrorKind::Denied,
            Self::NotPermitted | Self::ReadOnly => ErrorKind::Denied,
            Self::NoShare | Self::Folder => ErrorKind::NotFound,
            Self::Full(_) => ErrorKind::OutOfSpace,
        }
    }

    /// What a person can do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Privilege => "run it as root, or have the share mounted and give its path instead",
            Self::NoModule(_) => {
                "load or install the module (cifs for smb, nfs for nfs), or give a path or another kind of share"
            }
            Self::NoCipher => {
                "load or install the modules ccm, gcm, cmac, ctr, sha512 and aes (dmesg names the one)"
            }
            Self::OldKernel => "mount the share (cifs-utils, nfs-common) and give its path instead",
            Self::Name(_) => {
                "check the server's name and the resolver (getent hosts NAME), or give its address"
            }
            Self::Port(..) => "check that the server is up, the port, and firewalls in between",
            Self::Protocol(_) => "check the port, and what the server logs about this connection",
            Self::Version(_) => "allow a newer version on the server",
            Self::Password => "check the user in the URL and IMAGER_SHARE_PASSWORD, _FILE or _COMMAND",
            Self::NoPassword => {
                "set IMAGER_SHARE_PASSWORD_FILE, IMAGER_SHARE_PASSWORD_COMMAND or IMAGER_SHARE_PASSWORD"
            }
            Self::Expired => "set a new password on the server",
            Self::NoShare => "check the share's or export's name on the server (smbclient -L, showmount -e)",
            Self::NotPermitted => "allow this user (SMB) or this machine's address (NFS) on the server",
            Self::Folder => "check the path behind the share's name; imager init makes it",
            Self::ReadOnly => {
                "allow writing there: for this user (SMB: read only = no), or this machine as root (NFS: rw, no_root_squash \
                 or a folder of the squashed user's)"
            }
            Self::Full(_) => "make room on the share and run it again: what is stored already is used",
            Self::Other(_) => "dmesg may show what the kernel found",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Privilege => f.write_str("only root may mount a share"),
            Self::NoModule(name) => write!(f, "this kernel has no {name} filesystem"),
            Self::NoCipher => f.write_str("this kernel lacks a cipher that SMB needs"),
            Self::OldKernel => f.write_str("this kernel is older than 5.2 and cannot mount privately"),
            Self::Name(said) => write!(f, "the server's name has no address: {said}"),
            Self::Port(address, said) => write!(f, "nobody answers at {address}: {said}"),
            Self::Protocol(said) => write!(f, "what answers there does not go on: {said}"),
            Self::Version(ours) => {
                write!(f, "the server offers no version of the protocol that we take ({ours})")
            }
            Self::Password => f.write_str("the server does not accept this user with this password"),
            Self::NoPassword => f.write_str("the URL names a user, and there is no password for the share"),
            Self::Expired => f.write_str("the user's password has expired"),
            Self::NoShare => f.write_str("the server has no such share"),
            Self::NotPermitted => f.write_str("the server does not let us into this share"),
            Self::Folder => f.write_str("the share is there, the folder in it is not"),
            Self::ReadOnly => f.write_str("the share may not be written"),
            Self::Full(free) => write!(f, "the share is full ({free} free)"),
            Self::Other(said) => f.write_str(said),
        }
    }
}

impl std::error::Error for Trouble {}
