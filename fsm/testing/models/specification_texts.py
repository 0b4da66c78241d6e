"""The parts of a specification around the machine: the workers, the provider, the faults and the claims.

Plain text with ``$places`` for what :mod:`fsm.testing.models.specifications` fills in from the table. Both models say
the same:
commits are atomic, a worker may die between any two of them, and a provider does whatever a real one was seen to do.
Faults stop when ``calm`` becomes true, which it need not.
"""

__all__ = ["PROMELA", "TLA"]

PROMELA = """\
/* A conversation, its workers and its provider. Generated from the table of fsm._core.table.
 *
 *   safety                  pan, without -a
 *   every message answered  pan -a -f -N messages_answered
 *   every turn ends         pan -a -f -N turns_end
 */
#define WORKERS  $workers
#define MESSAGES $messages
#define IDS      $sessions

mtype = { $states };
mtype = { $triggers };

/* What is stored */
mtype state = $initial;
byte held;                  /* the provider session id; 0: none */
bool dead[IDS + 1];         /* the ids that are remembered as dead */
bool session_open = true;
byte running;               /* the worker whose turn runs; 0: none */
byte answered;              /* how many messages have their answer */

/* The state of the world */
bool gone[IDS + 1];         /* the sessions that the provider has lost */
bool reported[IDS + 1];     /* the ids that were reported dead in a committed result */
byte used;                  /* how many ids the provider has given out */
bool busy[WORKERS + 1];     /* the workers that are in a turn */
bool calm;                  /* faults have stopped */

/* The guards and effects that the rows name */
#define names_live_session(n) ((n) != 0 && !dead[n])
#define names_session(n)      ((n) != 0)
inline bind(n)   { held = n }
inline rebind(n) { if :: names_live_session(n) -> held = n :: else fi }
inline store(n)  { if :: names_session(n) -> held = n :: else fi }
inline mark_dead(n)   { if :: held != 0 -> dead[held] = true :: else fi; if :: n != 0 -> dead[n] = true :: else fi }
inline close(n)  { assert(session_open); held = 0; session_open = false }
inline open(n)   { assert(!session_open); session_open = true }

/* The table, a choice for each row */
inline move(trigger, n) {
  if
$rows
  :: else -> assert(false) /* the table has no such row */
  fi
}

inline check() {
  assert((state == ACTIVE) == (held != 0));     /* G1 */
  assert(!reported[held]);                      /* G2: not adopted */
  assert(session_open == (state != STALE))      /* G7 */
}

inline send(id) {
  assert(!reported[id]);                        /* G2: not sent */
  resumed = id
}

/* The ids of a committed expired result are dead from now on, but for one that is spared (0: none) */
inline report(spared) {
  if :: resumed != 0 && resumed != spared -> reported[resumed] = true :: else fi;
  if :: named != 0 && named != spared -> reported[named] = true :: else fi
}

inline name_new(lost) { used < IDS -> used++; named = used; gone[used] = lost }
inline name_any()     { !calm && used > 0 -> named = 1; do :: named < used -> named++ :: break od }

/* The provider: a lost session is reported; until it is calm it may also fail, or call anything dead */
inline answer() {
  if
  :: !(gone[resumed] && resumed != 0) -> outcome = SUCCEEDED
  :: !calm -> outcome = FAILED
  :: !calm || (gone[resumed] && resumed != 0) -> outcome = EXPIRED
  fi;
  if
  :: named = 0
  :: named = resumed
  :: name_new((outcome == EXPIRED))
  :: name_any()
  fi
}

inline rest() { busy[me] = false; resumed = 0; named = 0; outcome = 0; healed = false }

proctype Worker(byte me) {
  byte resumed, named;
  mtype outcome;
  bool healed;
end_idle:
  if
  :: !calm -> goto end_idle /* nobody needs to send before faults stop */
  /* begin: one commit. A turn that is running is ended if its lease is over or its worker has died. */
  :: atomic { answered < MESSAGES && (running == 0 || !calm || !busy[running]) ->
       if :: state == STALE -> move(RESET, 0) :: else fi;
       running = me;
       busy[me] = true;
       check();
       send(held) }
  fi;
asked:
  if
  :: atomic { answer() }
  :: atomic { !calm -> rest(); goto end_idle } /* the worker dies */
  fi;
  if
  :: atomic { !calm -> rest(); goto end_idle } /* it dies with the result in its hands */
  :: atomic { running != me -> /* late: only ids that are not held are marked (G10) */
       if
       :: outcome == EXPIRED ->
          if :: resumed != 0 && resumed != held -> dead[resumed] = true :: else fi;
          if :: named != 0 && named != held -> dead[named] = true :: else fi;
          report(held)
       :: else
       fi;
       check(); rest(); goto end_idle }
  :: atomic { running == me ->
       move(outcome, named);
       if :: outcome == EXPIRED -> report(0) :: else fi;
       if
       :: outcome == EXPIRED && state == STALE && $heals -> /* heal: the same commit resets */
          move(RESET, 0);
          check();
          healed = true; named = 0; outcome = 0;
          send(0);
          goto asked
       :: else ->
          if :: outcome == SUCCEEDED && answered < MESSAGES -> answered++ :: else fi;
          running = 0;
          check(); rest(); goto end_idle
       fi }
  fi
}

proctype World() {
  byte id;
  do
  :: atomic { !calm -> move(RESET, 0); running = 0; check() } /* a forced reset */
  :: atomic { !calm && used > 0 -> id = 1; do :: id < used -> id++ :: break od; gone[id] = true; id = 0 }
  :: !calm -> skip
  :: !calm -> calm = true
  :: calm -> break
  od
}

init { atomic { $run run World() } }

ltl messages_answered { (<> calm) -> <> (answered == MESSAGES) }
ltl turns_end { [] (busy[1] -> <> !busy[1]) }
"""

TLA = r"""---- MODULE Conversation ----
(* A conversation, its workers and its provider. Generated from the table of fsm._core.table. *)
EXTENDS Naturals

Workers == 1..$workers
Messages == $messages
Ids == 1..$sessions

VARIABLES
  c,        \* what is stored: state, held id (0: none), ids remembered as dead, whether a session is open
  running,  \* the worker whose turn runs; 0: none
  answered, \* how many messages have their answer
  gone,     \* the sessions that the provider has lost
  reported, \* the ids that were reported dead in a committed result
  used,     \* how many ids the provider has given out
  w,        \* the workers
  calm      \* faults have stopped

vars == <<c, running, answered, gone, reported, used, w, calm>>

\* The guards and effects that the rows name
names_live_session(d, n) == n # 0 /\ n \notin d.dead
names_session(d, n) == n # 0
bind(d, n) == [d EXCEPT !.held = n]
rebind(d, n) == IF names_live_session(d, n) THEN bind(d, n) ELSE d
store(d, n) == IF names_session(d, n) THEN bind(d, n) ELSE d
mark_dead(d, n) == [d EXCEPT !.dead = @ \cup ({d.held, n} \ {0})]
close(d, n) == [d EXCEPT !.held = 0, !.open = FALSE, !.sound = @ /\ d.open]
open(d, n) == [d EXCEPT !.open = TRUE, !.sound = @ /\ ~d.open]

\* The table, a case for each row
Move(d, trigger, n) ==
$rows
    [] OTHER -> [d EXCEPT !.sound = FALSE]

Idle == [phase |-> "idle", resumed |-> 0, outcome |-> "none", named |-> 0, healed |-> FALSE]

Init ==
  /\ c = [state |-> "$initial", held |-> 0, dead |-> {}, open |-> TRUE, sound |-> TRUE]
  /\ running = 0 /\ answered = 0 /\ used = 0
  /\ gone = {} /\ reported = {}
  /\ w = [i \in Workers |-> Idle]
  /\ calm = FALSE

\* One commit. A turn that is running is ended if its lease is over or its worker has died.
Begin(i) ==
  /\ w[i].phase = "idle" /\ answered < Messages
  /\ IF running = 0 THEN TRUE ELSE ~calm \/ w[running].phase = "idle"
  /\ c' = IF c.state = "stale" THEN Move(c, "reset", 0) ELSE c
  /\ running' = i
  /\ w' = [w EXCEPT ![i] = [Idle EXCEPT !.phase = "asked", !.resumed = c'.held]]
  /\ UNCHANGED <<answered, gone, reported, used, calm>>

\* A lost session is reported; until it is calm, the provider may also fail, or call anything dead.
Outcomes(i) ==
  (IF w[i].resumed \in gone THEN {"expired"} ELSE {"succeeded"})
    \cup (IF calm THEN {} ELSE {"failed", "expired"})

Answer(i) ==
  /\ w[i].phase = "asked"
  /\ \E outcome \in Outcomes(i) :
     \E named \in {0, w[i].resumed} \cup (IF calm THEN {} ELSE 1..used) \cup ({used + 1} \cap Ids) :
       /\ w' = [w EXCEPT ![i].phase = "answered", ![i].outcome = outcome, ![i].named = named]
       /\ used' = IF named > used THEN named ELSE used
       /\ gone' = IF named > used /\ outcome = "expired" THEN gone \cup {named} ELSE gone
  /\ UNCHANGED <<c, running, answered, reported, calm>>

Reports(i) == IF w[i].outcome = "expired" THEN {w[i].resumed, w[i].named} \ {0} ELSE {}

\* Only ids that nobody holds are buried by a late result (G10).
Late(i) ==
  /\ w[i].phase = "answered" /\ running # i
  /\ c' = [c EXCEPT !.dead = @ \cup (Reports(i) \ {c.held})]
  /\ reported' = reported \cup (Reports(i) \ {c.held})
  /\ w' = [w EXCEPT ![i] = Idle]
  /\ UNCHANGED <<running, answered, gone, used, calm>>

Finish(i) ==
  /\ w[i].phase = "answered" /\ running = i
  /\ reported' = reported \cup Reports(i)
  /\ LET moved == Move(c, w[i].outcome, w[i].named)
         heals == w[i].outcome = "expired" /\ moved.state = "stale" /\ $heals
     IN IF heals
        THEN /\ c' = Move(moved, "reset", 0)
             /\ w' = [w EXCEPT ![i] = [Idle EXCEPT !.phase = "asked", !.healed = TRUE]]
             /\ UNCHANGED <<running, answered>>
        ELSE /\ c' = moved
             /\ w' = [w EXCEPT ![i] = Idle]
             /\ running' = 0
             /\ answered' = IF w[i].outcome = "succeeded" /\ answered < Messages THEN answered + 1 ELSE answered
  /\ UNCHANGED <<gone, used, calm>>

Work(i) == Begin(i) \/ Answer(i) \/ Late(i) \/ Finish(i)

Crash(i) ==
  /\ ~calm /\ w[i].phase # "idle"
  /\ w' = [w EXCEPT ![i] = Idle]
  /\ UNCHANGED <<c, running, answered, gone, reported, used, calm>>

ForcedReset ==
  /\ ~calm
  /\ c' = Move(c, "reset", 0) /\ running' = 0
  /\ UNCHANGED <<answered, gone, reported, used, w, calm>>

Lose ==
  /\ ~calm
  /\ \E id \in (1..used) \ gone : gone' = gone \cup {id}
  /\ UNCHANGED <<c, running, answered, reported, used, w, calm>>

BecomeCalm == ~calm /\ calm' = TRUE /\ UNCHANGED <<c, running, answered, gone, reported, used, w>>

Next == (\E i \in Workers : Work(i) \/ Crash(i)) \/ ForcedReset \/ Lose \/ BecomeCalm

\* Workers do their work; nobody needs to send before faults stop.
Fair(i) == (calm /\ Begin(i)) \/ Answer(i) \/ Late(i) \/ Finish(i)

Spec == Init /\ [][Next]_vars /\ \A i \in Workers : WF_vars(Fair(i))

G1 == (c.state = "active") = (c.held # 0)
G2 == c.held \notin reported
NeverSent == [][\A i \in Workers :
  w'[i].phase = "asked" /\ w[i].phase # "asked" => w'[i].resumed \notin reported']_vars
G7 == c.sound /\ c.open = (c.state # "stale")

MessagesAnswered == (<>calm) => <>(answered = Messages)
TurnsEnd == \A i \in Workers : w[i].phase # "idle" ~> w[i].phase = "idle"
====
"""
