import assert from 'node:assert/strict'
import { registerHooks } from 'node:module'
import { test } from 'node:test'
import { forgeries } from './forgeries.ts'
import { type Forgery, outcome, type ServerFactory } from './forgery.ts'

// The control of forgeries.test.ts: a check that is taken out must make a forgery go through, or be stopped by
// the check that is named behind it. Modules are loaded again with `?without=<check>` and lose that check's code
// on the way; nothing of this is in the product.

type Check = readonly [file: string, code: RegExp, instead: string]

const root = new URL('../../src/', import.meta.url).href
const rewritten = /^(tpm\/(wire|verify)|attestation|server\/plugin\/node-attestor)\//
const checks = new Map<string, Check>()
const applied = new Set<string>()

registerHooks({
  resolve(specifier, context, nextResolve) {
    const resolved = nextResolve(specifier, context)
    const without = context.parentURL?.split('?without=')[1]
    const isOurs = resolved.url.startsWith(root) && rewritten.test(resolved.url.slice(root.length))
    if (without === undefined || !isOurs || resolved.url.includes('?')) return resolved
    return { ...resolved, url: `${resolved.url}?without=${without}` }
  },
  load(url, context, nextLoad) {
    const [file = '', without = ''] = url.split('?without=')
    const loaded = nextLoad(url, context)
    const check = checks.get(without)
    if (check === undefined || !file.startsWith(root + check[0])) return loaded
    const source = sourceText(loaded.source)
    if (!source.match(check[1])) return loaded
    applied.add(without)
    return { ...loaded, source: source.replaceAll(check[1], check[2]) }
  },
})

for (const [at, forgery] of forgeries.entries())
  test(`without the check, ${forgery.name} is ${forgery.without}`, async () => {
    const factory = await loadWithout(checkOf(forgery), `${at}`)
    assert.equal(await outcome(forgery, factory), forgery.without)
  })

/** By default the check is the `throw` of the forgery's reason, wherever it stands. */
function checkOf({ check, reason }: Forgery): Check {
  if (check === undefined)
    return ['', new RegExp(`throw (refusal\\(\\s*'${reason}',)`, 'g'), 'void $1']
  const [file, code, instead] = check
  return [file, new RegExp(RegExp.escape(code), 'g'), instead]
}

async function loadWithout(check: Check, name: string): Promise<ServerFactory> {
  checks.set(name, check)
  const module = await import(`${root}server/plugin/node-attestor/tpm.ts?without=${name}`)
  assert.ok(applied.has(name), `the check ${check[1]} is not in the source`)
  return module.createTpmNodeAttestor
}

function sourceText(source: unknown): string {
  if (typeof source === 'string') return source
  if (source instanceof Uint8Array) return new TextDecoder().decode(source)
  throw new TypeError('a module has no source')
}
