import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import { NameTable } from '#host/name-service.ts'
import { Administrators, type AdministratorsOptions } from './administrators.ts'

/** Those the configuration names, with the users and groups of this machine. Logs a warning of each that nobody knows. */
export async function openAdministrators(
  options: Omit<AdministratorsOptions, 'users' | 'groups'>,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): Promise<Administrators> {
  const names = (database: 'passwd' | 'group'): NameTable =>
    new NameTable({ database, file: `/etc/${database}`, clock, log })
  const administrators = new Administrators({
    ...options,
    users: names('passwd'),
    groups: names('group'),
  })
  await warnOfUnknown(administrators, log)
  return administrators
}

export async function warnOfUnknown(administrators: Administrators, log: Log): Promise<void> {
  for (const who of await administrators.unknownNames()) {
    log.warn({ who }, 'administrators names somebody this machine does not know')
  }
}
