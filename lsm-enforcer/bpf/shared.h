/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the gate's two sides exchange: keys and values of its maps, and events.
 * lsm-enforcer/src/kernel/shared.rs has the same structs; sizes are asserted on both sides,
 * and every struct is free of padding that is not named.
 */
#pragma once

/* Words of one stored chunk of an image: what one map look-up brings. */
#define CHUNK_WORDS 64
/* Words read from the program at once, by each pass: what the stack's 512 bytes leave, all
 * calling frames together. The fingerprint is over zero-padded blocks of FINGERPRINT_WORDS. */
#define FINGERPRINT_WORDS 32
#define COMPARE_WORDS 16
#define SCAN_WORDS 8
/* Most chunks: BPF_COMPLEXITY_LIMIT_INSNS is 1,000,000. */
#define MAX_CHUNKS 15625
/* First words of a refused program that its event carries. */
#define EVENT_WORDS 64
/* Bytes of frozen data compared at once. */
#define DATA_BYTES 256
/* Most maps of one program (MAX_USED_MAPS). */
#define MAX_MAPS 64
/* Most tunables of one map. */
#define MAX_TUNABLES 64
/* Marks a map reference in a stored word; the rest is the word that first refers to this map. */
#define MAP_MARK 0x80000000u
/* BPF_MAP_TYPE_INSN_ARRAY, of 6.19; BPF_MAP_TYPE_RHASH, of 7.2. */
#define JUMP_TABLES 34
#define LAST_MAP_TYPE 35
/* Slots of `loaders`, a power of two. */
#define LOADER_SLOTS 1024
/* Bytes of the name of a place, and of a pattern, with the NUL. */
#define PLACE_BYTES 64
/* Multiplier of the fingerprint: 2^64 divided by the golden ratio, odd. */
#define FINGERPRINT_PRIME 0x9e3779b97f4a7c15ull

enum class {
	CLASS_NONE = 0,
	CLASS_SIGNED = 1,
	CLASS_PROBE = 2,
	CLASS_SHAPE = 3,
	CLASS_BEFORE = 4,
	CLASS_AUDITED = 5,
	CLASS_GENERATED = 6,
	CLASS_NATIVE = 7,
	CLASS_KNOWN = 8,
	CLASS_OWN = 9,	/* the gate's, loaded by the daemon while it is armed */
};

enum licence { LICENCE_ANY = 0, LICENCE_GPL = 1, LICENCE_OTHER = 2 };

/* MODE_OPEN: being disarmed. Everything passes unseen, while hooks go one after another. */
/* Ways into kernel memory, by number: policy/src/protect.rs has the same. */
enum protect {
	PROTECT_UNSIGNED_MODULES = 0,
	PROTECT_KEXEC = 1,
	PROTECT_DEV_MEM = 2,
	PROTECT_IO_PORTS = 3,
	PROTECT_MSR = 4,
	PROTECT_PCI = 5,
	PROTECT_KCORE = 6,
	PROTECT_DEBUGGER = 7,
	PROTECT_ACPI_TABLES = 8,
	PROTECT_HIBERNATION = 9,
	PROTECT_HARDWARE_PARAMETERS = 10,
	PROTECT_NOTHING = 32,
};

enum mode { MODE_ENFORCE = 0, MODE_AUDIT = 1, MODE_OPEN = 2 };

/* What an index entry is for. Stored in key.use, so that one map holds all. */
enum use {
	USE_IMAGE = 0,    /* the whole identity -> header */
	USE_ALIKE = 1,    /* fingerprint and length alone, whatever the type: reason other-type */
	USE_NAMED = 2,    /* name and type: the program that this one claims to be */
	USE_SHAPE = 3,    /* type, len = number: shape rules */
	USE_SETTINGS = 4, /* one entry: mode */
	USE_ARMED = 5,    /* len = number: pieces of what user space keeps with the set */
	USE_OTHER = 6,    /* fingerprint = image: the next one that differs only in who shares a map */
	USE_SIBLING = 7,  /* fingerprint = image: the next one that differs only in its maps */
	USE_GENERATOR = 9, /* len = image: a generator of the policy; mode = 1: functions allowed */
	USE_ANY_TARGET = 8, /* like USE_IMAGE, whatever the BTF target: probes only */
	USE_INDEXED = 10, /* like USE_IMAGE, for loads with maps by index or kernel-side CO-RE */
	USE_KEYRINGS = 11, /* one entry: mode = keyrings by which the kernel may verify, bit by number */
	USE_CALLS = 12, /* fingerprint = image, len = a number of its calls: mode = the module's, as `btf` below */
};
/* Most images that share a key, in either way. */
#define MAX_ALIKE 8
/* Most shapes for one program type. */
#define MAX_SHAPES 2

struct key {
	u64 fingerprint;
	u32 len;
	u16 prog_type;
	u16 use;
	u32 attach_type;
	u32 btf_id;
	u32 flags;
	u32 btf;	/* in whose types btf_id counts: a module's by the kernel's id of them; 0: the kernel's */
};

struct header {
	u32 image;     /* id, never used again; shape number for USE_SHAPE */
	u32 class;
	u32 maps;      /* exact count; most for shapes */
	u32 max_insns; /* shapes; insns of the image otherwise */
	u32 mode;      /* USE_SETTINGS; USE_INDEXED: do the maps stand in fd_array as they appear? */
	u32 places;    /* patterns of places where it may be attached; 0: anywhere.
			* USE_SETTINGS: ways into kernel memory that are closed, bit by number */
	union {
		u64 helpers[4]; /* shapes: helper ids that may be called */
		u64 licence;	/* images: enum licence */
	};
	u32 prog_type; /* USE_ALIKE */
	u32 refs;      /* references to maps in the instructions; counted with two or more maps */
};

struct chunk_key {
	u32 image;
	u32 chunk;
};

struct chunk {
	u64 words[CHUNK_WORDS];
};

struct map_key {
	u32 image;
	u32 map;
};

struct map_spec {
	u32 type;
	u32 key_size;
	u32 value_size;
	u32 min_entries;
	u32 max_entries;
	u32 flags;
	u32 flags_free;
	u32 size;      /* bytes of contents to compare; 0: contents are not compared */
	u32 tunables;
	u32 inner_type; /* of the maps in it; 0: it is no map of maps, or nobody knows */
	u32 inner_key_size;
	u32 inner_value_size;
	u32 inner_entries;
	u32 inner_flags;
};

/* What the kernel says of an image's instructions when it has relocated them: SHA-256. */
struct result {
	u64 digest[4];
};

struct data_key {
	u32 image;
	u32 map;
	u32 chunk;
	u32 spare;
};

struct data {
	u64 want[DATA_BYTES / 8];
	u64 mask[DATA_BYTES / 8];
};

struct tunable {
	u32 offset;
	u32 size;
	u32 is_signed;
	u32 count;     /* 0: a range, values[0] to values[1]; else that many values */
	s64 values[8];
};

/* In origin.class: no further program of this image gets a descriptor. */
#define ORIGIN_REVOKED 0x80000000u

/* Where an image came from. Written and read by user space alone: it outlives the daemon. */
struct origin {
	u8 content[32];	/* SHA-256 of all that was written for it */
	u8 bundle[32];
	char name[64];
	u32 class;
	u32 has_bundle;
	u32 maps;
	u32 insns;
};

/* One per program that passed gate 1, by aux. */
struct record {
	u32 image;
	u8 class;
	u8 state;
	u8 files;
	u8 audited;
	u32 reason;
	u32 maps;
	u64 detail;
	u32 pid;
	u32 uid;
	u32 id;		/* the kernel's, known at gate 2 */
	u32 refs;	/* of the image */
	u32 places;	/* of the image */
	u8 indexed;	/* compare the result of relocation */
	u8 licence;	/* of the image */
	u16 module;	/* gate 1 has seen that the target is in the module that was meant */
	char comm[16];
};

/*
 * Requests of an ioctl, for any descriptor, which the gate sees before its owner does. Whoever makes the first is the
 * daemon no more. Whoever did makes the second when it has answered. The daemon makes the third about a process of
 * its own: EPERM unless that made both, and nobody put breakpoints into it until then.
 */
#define STEP_DOWN 0x6270736cu
#define ANSWERED 0x6270736du
#define WHETHER_ANSWERED 0x6270736eu
/* In a mark, beside the time. */
#define MARK_STEPPED_DOWN (1ull << 63)
#define MARK_ANSWERED (1ull << 62)

/*
 * Could another thread exchange descriptors while the verifier resolved them, and if so, what
 * did the kernel's own instructions show?
 */
enum files {
	FILES_OWN = 0,
	FILES_SHARED = 1,	/* gate 2 has to look */
	FILES_BOUND = 2,	/* seen before dead code was removed: one map for each number */
	FILES_BROKEN = 3,	/* seen: another map than the image refers to */
};

/* The maps that a program under way refers to, by number in the image. */
struct bound {
	u64 maps[MAX_MAPS];
};
/* A reference of an image: the map's number in the upper half; for a reference to the map's
 * value, this bit and the offset. */
#define REF_VALUE (1ull << 63)
#define REF_NUMBER(ref) ((u32)((ref) >> 32) & (MAX_MAPS - 1))

enum state { STATE_ADMITTED = 1, STATE_PASSED = 2, STATE_REFUSED = 3 };

/* What the gate guards and whom it obeys; one entry, written by user space. */
struct guard {
	u64 armed_at;      /* boot-time nanoseconds; later programs need a record */
	u32 locked;        /* is self-protection on? */
	u32 mount_ns;      /* inum of the mount namespace that has the pins */
	u64 pins;          /* inode of the folder of pins */
	u32 pins_dev;
	u32 exe_dev;
	u64 exe;           /* inode of the daemon's executable */
	u64 mount;         /* address of the mount that shows the pins */
	u32 next_image;
	u32 static_exe;
	u32 first_map;     /* no map with a lower id is the gate's, */
	u32 last_map;      /* and none with a higher one */
	u32 kprobes;       /* flags of a trace event: it is a kprobe, */
	u32 tracepoints;   /* it is a tracepoint, */
	u32 uprobes;       /* it is a uprobe */
	u32 renewing;      /* thread of the daemon that exchanges the gate's programs now; or 0 */
	u32 revoked;       /* was anything revoked since arming? */
	u32 placed;        /* did any rule name places since arming? */
	u64 next_exe;      /* inode of the file that is about to take the place of the daemon's; or 0 */
	u64 build;         /* which build's programs these are */
	u64 layout;        /* of that build: what its maps hold */
	u64 renewer;       /* when that daemon started, in clock ticks */
	u64 last_exe;      /* inode of the file that was there before; or 0 */
	u32 next_dev;
	u32 last_dev;
	u32 last_prog;     /* no program with a higher id was there before gate 1 saw each load */
	u32 shown;         /* of this map the next two are said, when the daemon asks for it by its id: */
	u64 users;         /* descriptors and pins, */
	u64 references;    /* and programs and maps beside them */
	u32 complete;      /* did arming come to its end? */
	u32 last_word;     /* enum last_word */
};

/* What is done to a call of bpf() about which the gate was not asked. */
enum last_word {
	LAST_WORD_NONE = 0,
	LAST_WORD_WATCHES = 1, /* nothing; it says that there was one by being LAST_WORD_NONE again */
	LAST_WORD_REFUSES = 2,
};

/* Who calls through an array of programs, and what is in it. */
struct array {
	u32 image;	/* of a caller; all of them have its places, or it is MIXED_CALLERS */
	u32 holds;	/* was a program put there whose rule names places? */
};

/* A generator's limits; by its image. Written by user space alone. */
struct maker {
	u64 types;	/* program types, bit by number */
	u64 map_types;	/* kinds of maps */
	u64 cgroup;	/* id of the control group that it must be in or below; 0: anywhere */
	u64 until;	/* boot-time nanoseconds; the end of a permit */
	u32 level;	/* of the control group */
	u32 uid;	/* -1: anybody */
	u32 maps;	/* most */
	u32 max_insns;
	u64 disk;	/* the dm-verity volume of its files, as in 'struct volume', when they were looked at */
	u32 device;	/* 0: they are on none */
	u32 tables;
};
/* A device with dm-verity, by its number: which one has that number, and how many tables it got since arming. */
struct volume {
	u64 disk;	/* sequence number, of which each device has another one */
	u32 tables;
	u32 spare;
};
/* Which limit a generator's program is outside of: the detail of its event. */
enum limit {
	LIMIT_TIME = 1,
	LIMIT_USER = 2,
	LIMIT_CGROUP = 3,
	LIMIT_TYPE = 4,
	LIMIT_LENGTH = 5,
	LIMIT_CALLS = 6,
	LIMIT_VOLUME = 7,
	LIMIT_REGISTERS = 8,
};
/* A file that nobody may write, by inode: whose code it is, as images of generators. */
#define PIN_LIBRARIES 7
struct pin {
	u32 exe;
	u32 libraries[PIN_LIBRARIES];
};
/* A process that runs a generator's executable and nothing else. */
struct made {
	u64 start;
	u32 image;
	u32 spare;
};

/* OWN_PIN: the inode of a link's pin. */
enum own { OWN_MAP = 1, OWN_PROG = 2, OWN_LINK = 3, OWN_PIN = 4 };
struct own_key {
	u32 kind;
	u32 id;
};

/* Who may change what is in force, and in which tick he started. The value is 1 for the daemon, 0 for a command. */
struct holder {
	u32 tgid;
	u32 spare;
	u64 started;
};

/* 6.1 to 6.8: what lsm/bpf saw of a load, until lsm/capable judges it. */
struct pending {
	u64 aux;
	u32 flags;
	u32 core_relos;
	u32 ifindex;
	u32 fd_array;
	u32 attach_fd;
	u32 spare;
};

enum counter {
	COUNT_PASSED,
	COUNT_REFUSED,
	COUNT_AUDITED,
	COUNT_LOST,
	COUNT_PROTECTED,
	COUNT_RECORDS,
	COUNT_TABLES_LOST,	/* of dm-verity, for which 'volumes' had no room */
	COUNTERS,
};

struct event {
	u64 at;
	u64 detail;
	u64 cgroup;
	u32 gate;
	u32 reason;
	u32 refused;
	u32 class;
	u32 prog_type;
	u32 attach_type;
	u32 btf_id;
	u32 flags;
	u32 insns;
	u32 prog_id;
	u32 image;
	u32 words_count;
	u32 pid;
	u32 tid;
	u32 uid;
	u32 spare;
	char comm[16];
	char name[16];
	u64 words[EVENT_WORDS];
};
/* An event without its words. */
#define EVENT_SHORT 120

#define SAME_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
SAME_SIZE(struct key, 32);
SAME_SIZE(struct header, 64);
SAME_SIZE(struct chunk_key, 8);
SAME_SIZE(struct chunk, 512);
SAME_SIZE(struct map_key, 8);
SAME_SIZE(struct map_spec, 56);
SAME_SIZE(struct result, 32);
SAME_SIZE(struct data_key, 16);
SAME_SIZE(struct data, 512);
SAME_SIZE(struct tunable, 80);
SAME_SIZE(struct record, 64);
SAME_SIZE(struct origin, 144);
SAME_SIZE(struct bound, 512);
SAME_SIZE(struct guard, 168);
SAME_SIZE(struct array, 8);
SAME_SIZE(struct pending, 32);
SAME_SIZE(struct maker, 64);
SAME_SIZE(struct volume, 16);
SAME_SIZE(struct pin, 32);
SAME_SIZE(struct made, 16);
SAME_SIZE(struct event, EVENT_SHORT + 8 * EVENT_WORDS);
