# What is for a kernel module loads for the module that was meant, by its name and the content of its
# types, whatever it is: a target, or a function that is called. $module is the module's name, and
# $load loads an object that needs it, as $programs; NAME_other.ko has the same name and other types.
. /lab/policy.sh

loads_once() { $load "$@" && rm -rf $programs; }
there() { insmod /lab/modules/$1.ko; }
# The kernel lets go of it some time after its last program is gone.
gone() { awaits rmmod $module; }

# meant FIXTURE PROGRAM: without a gate it loads, then when it is admitted.
meant() {
    check "the module is loaded" there $module
    check "before arming it loads" loads_once
    check "the daemon starts" daemon
    prints "arm" '^Enforcing' $arm
    refused "afterwards it does not" $load
    prints "with the reason" "E405 module-btf.*\"$2" $X events
    prints "it is admitted" admitted admitted $1
    check "and loads" loads_once
}

# follows: it follows the module that comes anew, and no other of its name. Disarms at the end.
follows() {
    follow
    check "the module goes" gone
    fails "without it nothing loads" . $load
    check "the daemon notices" hear 'no program for one may load'
    there $module
    refused "loaded anew it is another until the daemon has looked" $load
    check "which it does" hear "programs for $module may load"
    check "then it loads again" loads_once
    check "it goes again" gone
    there ${module}_other
    refused "another module of that name is refused" $load
    check "the daemon looks" hear 'no program for one may load'
    refused "and does not take it for the first" $load
    prints "until the operator does" . $X reload
    check "then it is this one" loads_once
    gone
    permitted disarm
    prints "disarm" Disarmed $X disarm --permit disarm.permit
    kill -TERM $daemon
    wait $daemon 2>/dev/null
}
