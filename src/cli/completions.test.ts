import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { commandsOf, nouns } from './catalog.ts'
import { completionScripts } from './commands/completion.ts'
import { completions } from './completions.ts'

const root = new URL('../..', import.meta.url).pathname

async function after(...words: readonly string[]): Promise<readonly string[]> {
  const [noun = ''] = words
  return completions({ nouns, commands: await commandsOf(noun) }, words)
}

test('completions() of nothing are the nouns that people use', async () => {
  const first = await after()
  assert.ok(first.includes('entry') && first.includes('why'))
  assert.ok(!first.includes('complete'))
})

test('completions() of a noun are its verbs', async () => {
  assert.deepEqual(await after('hsm'), ['status', 'keys', 'rotate', 'resume', 'accept-clock'])
  assert.deepEqual(await after('nix'), [])
  assert.deepEqual(await after('hsm', 'nix'), [])
})

test('completions() of a command are the options that may still be given', async () => {
  assert.deepEqual(await after('bundle', 'show'), [
    '--format',
    '--pq',
    '--socket-path',
    '--timeout',
    '--json',
    '--help',
  ])
  assert.ok(!(await after('bundle', 'show', '--json')).includes('--json'))
  const more = await after('entry', 'create', '--selector', 'unix:uid:0')
  assert.ok(more.includes('--selector'))
  assert.ok((await after('why')).includes('--pid'))
})

test('completions() of an option that takes a value are its choices, or left to the shell', async () => {
  assert.deepEqual(await after('bundle', 'show', '--format'), ['pem', 'spiffe'])
  assert.deepEqual(await after('bundle', 'set', '--path'), [])
})

/** What bash offers after `line`, with the real script and the real `assay`. */
function bashOffers(...words: readonly string[]): readonly string[] {
  const script = `${completionScripts.bash}
PATH=${root}bin:$PATH
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_assay
printf '%s\\n' "\${COMPREPLY[@]}"`
  const output = execFileSync('bash', ['-c', script, 'bash', 'assay', ...words], {
    cwd: `${root}docs`,
    encoding: 'utf8',
  })
  return output.split('\n').filter((line) => line !== '')
}

test('completionScripts.bash completes nouns, verbs, options, choices and files', () => {
  assert.deepEqual(bashOffers('ent'), ['entry'])
  assert.deepEqual(bashOffers('entry', 'c'), ['create', 'count'])
  assert.deepEqual(bashOffers('entry', 'create', '--sp'), ['--spiffe-id'])
  assert.deepEqual(bashOffers('bundle', 'show', '--format', ''), ['pem', 'spiffe'])
  assert.deepEqual(bashOffers('bundle', 'set', '--path', 'command'), ['commands.md'])
})

test('completionScripts.bash is what bash takes without a word', () => {
  execFileSync('bash', ['-n'], { input: completionScripts.bash, stdio: ['pipe', 'ignore', 'pipe'] })
})
