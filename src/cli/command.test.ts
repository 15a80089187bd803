import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeClock } from '#base/fake-clock.ts'
import { SystemRandom } from '#base/random.ts'
import {
  all,
  type Command,
  type CommandContext,
  choice,
  epochSeconds,
  integer,
  isOn,
  nowSeconds,
  optional,
  parseArguments,
  readNamed,
  required,
  seconds,
  UsageError,
} from './command.ts'

const command: Command = {
  name: 'entry make',
  summary: 'makes one',
  positionals: 'FILE',
  options: [
    { name: 'spiffe-id', value: 'ID', summary: 'whose' },
    { name: 'x509-svid-ttl', value: 'DURATION', summary: 'how long' },
    { name: 'socket-path', value: 'PATH', summary: 'where' },
    { name: 'selector', value: 'TYPE:VALUE', multiple: true, summary: 'which' },
    { name: 'format', value: 'FORMAT', choices: ['pem', 'spiffe'], summary: 'how' },
    { name: 'admin', summary: 'may do more' },
  ],
  run: () => Promise.resolve(),
}

const needy: Command = {
  ...command,
  options: [{ name: 'ttl', value: 'DURATION', required: true, summary: 'how long' }],
}

function contextOf(...args: readonly string[]): CommandContext {
  return {
    ...parseArguments(command, args),
    json: false,
    print: () => {},
    note: () => {},
    progress: () => {},
    readInput: () => Promise.resolve('from standard input'),
    setStatus: () => {},
    environment: {},
    signal: new AbortController().signal,
    cancel: () => {},
    clock: new FakeClock(),
    random: new SystemRandom(),
  }
}

const refuses = (args: readonly string[], message: string | RegExp, of = command): void =>
  assert.throws(
    () => parseArguments(of, args),
    (error) => {
      assert.ok(error instanceof UsageError)
      if (typeof message === 'string') assert.equal(error.message, message)
      else assert.match(error.message, message)
      return true
    },
  )

test('parseArguments() takes values apart from their names, or tied to them', () => {
  const { values, positionals } = parseArguments(command, ['--spiffe-id', 'a', '--format=pem', 'f'])
  assert.deepEqual(
    [...values],
    [
      ['spiffe-id', ['a']],
      ['format', ['pem']],
    ],
  )
  assert.deepEqual(positionals, ['f'])
})

test("parseArguments() understands SPIRE's spellings", () => {
  const args = ['-spiffeID', 'a', '-x509SVIDTTL=60', '-socketPath', '/s', '--SOCKETPATH', '/t']
  refuses(args, 'option --socket-path was given more than once')
  const { values } = parseArguments(command, args.slice(0, 5))
  assert.deepEqual(
    [...values],
    [
      ['spiffe-id', ['a']],
      ['x509-svid-ttl', ['60']],
      ['socket-path', ['/s']],
    ],
  )
})

test('parseArguments() keeps every value of an option that may be repeated, in order', () => {
  const { values } = parseArguments(command, ['--selector', 'b:2', '--selector=a:1'])
  assert.deepEqual(values.get('selector'), ['b:2', 'a:1'])
})

test('parseArguments() tells a switch that is on, off and not given apart', () => {
  const state = (...args: string[]) => parseArguments(command, args).switches.get('admin')
  assert.equal(state('--admin'), true)
  assert.equal(state('-admin=true'), true)
  assert.equal(state('--admin=false'), false)
  assert.equal(state('--admin', '--admin=false'), false)
  assert.equal(state(), undefined)
  refuses(['--admin=yes'], 'option --admin is a switch: it takes no value but true and false')
})

test('parseArguments() names the option that was probably meant', () => {
  refuses(
    ['--slector', 'a:b'],
    "unknown option --slector of 'assay entry make'; did you mean --selector?",
  )
  refuses(['-spifeID', 'a'], /^unknown option --spifeID of .*; did you mean --spiffe-id\?$/)
})

test('parseArguments() lists the options when none is near', () => {
  refuses(
    ['--quux'],
    "unknown option --quux of 'assay entry make'; it has --spiffe-id, --x509-svid-ttl, --socket-path, --selector, --format, --admin, --json, --help",
  )
})

test('parseArguments() refuses an option without its value', () => {
  refuses(['--spiffe-id'], 'option --spiffe-id needs a value: ID')
  refuses(
    ['--spiffe-id', '--json'],
    'option --spiffe-id needs a value: ID; a value that begins with a dash is tied: --spiffe-id=…',
  )
})

test('parseArguments() takes a dash, a tied dash and an empty text for values', () => {
  const value = (...args: string[]) => parseArguments(command, args).values.get('spiffe-id')
  assert.deepEqual(value('--spiffe-id', '-'), ['-'])
  assert.deepEqual(value('--spiffe-id=-x'), ['-x'])
  assert.deepEqual(value('--spiffe-id='), [''])
  assert.deepEqual(value('--spiffe-id', ''), [''])
  assert.deepEqual(value('--spiffe-id=a=b'), ['a=b'])
})

test('parseArguments() takes what follows -- for no option', () => {
  const { values, switches, positionals } = parseArguments(command, ['--', '--admin'])
  assert.deepEqual([values.size, switches.size, positionals], [0, 0, ['--admin']])
})

test('parseArguments() refuses a value that is none of the choices', () => {
  refuses(['--format', 'der'], "option --format is 'der': it is one of pem, spiffe")
})

test('parseArguments() wants what is required, except for --help', () => {
  refuses([], "'assay entry make' needs --ttl DURATION; see 'assay entry make --help'", needy)
  assert.equal(parseArguments(needy, ['--help']).switches.get('help'), true)
})

test('parseArguments() refuses arguments beyond those the command takes', () => {
  refuses(['a', 'b'], "unexpected argument 'b' after 'assay entry make'")
  const { positionals: _, ...bare } = command
  refuses(['a'], "unexpected argument 'a' after 'assay entry make'", bare)
  assert.equal(
    parseArguments({ ...command, positionals: 'WORD…' }, ['a', 'b']).positionals.length,
    2,
  )
})

test('parseArguments() takes a name that every object has for no option', () => {
  refuses(['--constructor'], /^unknown option --constructor /)
  refuses(['--__proto__=1'], /^unknown option/)
})

test('optional(), required(), all(), isOn() and choice() read what was parsed', () => {
  const context = contextOf('--selector=a:1', '--selector=b:2', '--admin=false')
  assert.equal(optional(context, 'spiffe-id'), undefined)
  assert.throws(() => required(context, 'spiffe-id'), /option --spiffe-id is required/)
  assert.deepEqual(all(context, 'selector'), ['a:1', 'b:2'])
  assert.equal(isOn(context, 'admin'), false)
  assert.equal(choice(context, 'format', ['pem', 'spiffe']), 'pem')
  assert.equal(choice(contextOf('--format=spiffe'), 'format', ['pem', 'spiffe']), 'spiffe')
})

const given = (text: string): CommandContext => contextOf(`--spiffe-id=${text}`)

test('integer() reads a whole number within its range', () => {
  const read = (text: string): number =>
    integer(given(text), 'spiffe-id', { otherwise: 7, minimum: 1 })
  assert.equal(read('1'), 1)
  assert.equal(read('2147483647'), 2147483647)
  assert.equal(integer(contextOf(), 'spiffe-id', { otherwise: 7 }), 7)
  for (const wrong of [
    '0',
    '-1',
    '1.5',
    '1e3',
    '0x10',
    '',
    ' 1',
    '2147483648',
    '99999999999999999999',
  ])
    assert.throws(() => read(wrong), /it must be a whole number from 1 to 2147483647/, wrong)
})

test('seconds() reads durations and plain seconds', () => {
  const read = (text: string): number => seconds(given(text), 'spiffe-id', 5)
  assert.deepEqual(
    ['90', '90s', '15m', '24h', '1h30m', '2d', '0'].map(read),
    [90, 90, 900, 86400, 5400, 172800, 0],
  )
  assert.equal(seconds(contextOf(), 'spiffe-id', 5), 5)
  for (const wrong of ['', 'x', '1.5h', '-1s', '1w', '1 h', 's', '1h30', '9999999999'])
    assert.throws(() => read(wrong), /write a duration such as 90s, 15m, 24h or 1h30m/, wrong)
  assert.throws(() => read('999999999d'), /at most 2147483647 seconds/)
})

test('epochSeconds() reads RFC 3339 and Unix time', () => {
  const read = (text: string): number => epochSeconds(given(text), 'spiffe-id')
  assert.equal(read('2026-01-31T12:00:00Z'), 1769860800)
  assert.equal(read('2026-01-31T13:00:00+01:00'), 1769860800)
  assert.equal(read('1769860800'), 1769860800)
  assert.equal(epochSeconds(contextOf(), 'spiffe-id'), 0)
  for (const wrong of ['tomorrow', '2026-01-31', '-1', ''])
    assert.throws(() => read(wrong), /write a time such as 2026-01-31T12:00:00Z/, wrong)
})

test('nowSeconds() is the time of the clock', () => {
  assert.equal(nowSeconds(contextOf()), 1767225600)
})

test('readNamed() reads standard input for a dash, and names a file that is not there', async () => {
  assert.equal(await readNamed(contextOf(), '-'), 'from standard input')
  await assert.rejects(
    readNamed(contextOf(), '/nowhere/at/all'),
    new UsageError('cannot read /nowhere/at/all: there is no such file'),
  )
  await assert.rejects(readNamed(contextOf(), '/'), /^UsageError: cannot read \/: EISDIR/)
})
