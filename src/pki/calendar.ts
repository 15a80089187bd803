// The Gregorian calendar as certificates need it, in integer arithmetic: a certificate has two dates, and
// Temporal takes as long over them as the rest of the parser over everything else. Years begin in March
// here, so that the leap day is the last of its year.

const daysPerEra = 146097 // 400 years
const epochDay = 719468 // from 0000-03-01 to 1970-01-01

export interface CivilDate {
  readonly year: number
  /** 1 to 12. */
  readonly month: number
  /** 1 to 31. */
  readonly day: number
}

/** Days from 1970-01-01 to a date of the years 0 to 9999; undefined when there is no such date. */
export function daysOf(date: CivilDate): number | undefined {
  const { year, month, day } = date
  if (month < 1 || month > 12 || day < 1 || day > 31) return undefined
  const marchYear = month <= 2 ? year - 1 : year
  const era = Math.floor(marchYear / 400)
  const yearOfEra = marchYear - era * 400
  const dayOfYear = Math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
  const leapDays = Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100)
  const days = era * daysPerEra + yearOfEra * 365 + leapDays + dayOfYear - epochDay
  // The 31st of a shorter month lands in the next one.
  return dateOf(days).day === day ? days : undefined
}

/** The date `days` after 1970-01-01, years 0 to 9999. */
export function dateOf(days: number): CivilDate {
  const sinceMarch0000 = days + epochDay
  const era = Math.floor(sinceMarch0000 / daysPerEra)
  const dayOfEra = sinceMarch0000 - era * daysPerEra
  const leapDays =
    Math.floor(dayOfEra / 1460) - Math.floor(dayOfEra / 36524) + Math.floor(dayOfEra / 146096)
  const yearOfEra = Math.floor((dayOfEra - leapDays) / 365)
  const dayOfYear =
    dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const monthFromMarch = Math.floor((5 * dayOfYear + 2) / 153)
  const day = dayOfYear - Math.floor((153 * monthFromMarch + 2) / 5) + 1
  const month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
  return { year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day }
}
